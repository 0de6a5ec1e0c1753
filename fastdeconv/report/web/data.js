// What the page was given. Gives: song, features, named, shown.

const song = JSON.parse(document.getElementById("data").textContent);

/** All features, in the order to listen in inside each layer, with where they belong. */
const features = song.layers.flatMap((layer, index) =>
  layer.features.map((feature) => ({
    ...feature,
    layer: layer.name,
    index,
    at: `${index}/${feature.k}`,
    name: `${layer.name}/${feature.k}`,
    hash: `#${encodeURIComponent(layer.name)}/${feature.k}`,
  })),
);

const byPlace = new Map(features.map((feature) => [feature.at, feature]));

/** The feature that an address such as #pool3/17 names, if there is one. */
function named(hash) {
  try {
    const name = decodeURIComponent(hash.slice(1));
    return features.find((feature) => feature.name === name);
  } catch {
    return undefined; // not a valid escape: an address someone mistyped
  }
}

/** Number i of a feature or of the clip, with its unit. */
function shown(numbers, i) {
  const { unit, digits, percent } = song.numbers[i];
  if (numbers[i] === null) return "–";
  const text = ((percent ? 100 : 1) * numbers[i]).toFixed(digits).replace("-", "−");
  return unit ? `${text} ${unit}` : text;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
