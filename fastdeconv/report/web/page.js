// The data of the page, and how to show it. Gives: page, shown, quantity, element, frameAround,
// address, named.

const page = JSON.parse(document.getElementById("data").textContent);

/** Number i of a feature or of the clip, with its unit. */
function shown(numbers, i) {
  return quantity(numbers[i], i);
}

/** A value of number i, with its unit. */
function quantity(value, i) {
  const { unit, digits, percent } = page.numbers[i];
  if (value === null) return "–";
  const text = ((percent ? 100 : 1) * value).toFixed(digits).replace("-", "−");
  return unit ? `${text} ${unit}` : text;
}

/** A new element. Text goes in as text: nothing here is ever parsed as HTML. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A frame to be put on the axes of a picture, from its edges in percent of the picture. */
function frameAround([left, right, bottom, top]) {
  const frame = element("span", { className: "field" });
  Object.assign(frame.style, {
    left: `${left}%`, right: `${100 - right}%`, bottom: `${bottom}%`, top: `${100 - top}%`,
  });
  return frame;
}

/** The address of a feature on a page, such as #pool3/17. */
function address(layer, k) {
  return `#${encodeURIComponent(layer)}/${k}`;
}

/** The feature in `list` that an address names, if there is one. */
function named(list, hash) {
  try {
    const name = decodeURIComponent(hash.slice(1));
    return list.find((feature) => feature.name === name);
  } catch {
    return undefined; // not a valid escape: an address someone mistyped
  }
}
