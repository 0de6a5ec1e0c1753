// The features of the song. Takes page, address, element. Gives: features, byPlace, frameOf.

/** All features, in the order to listen in inside each layer, with where they belong. */
const features = page.layers.flatMap((layer, index) =>
  layer.features.map((feature) => ({
    ...feature,
    layer: layer.name,
    index,
    at: `${index}/${feature.k}`,
    name: `${layer.name}/${feature.k}`,
    hash: address(layer.name, feature.k),
  })),
);

const byPlace = new Map(features.map((feature) => [feature.at, feature]));

/** What the strongest unit of a feature sees, to be put on the axes of a picture; a list of one,
 *  or of none where that is not known. */
function frameOf(feature) {
  if (!feature.box) return [];
  const [left, right, bottom, top] = feature.box;
  const frame = element("span", { className: "field" });
  Object.assign(frame.style, {
    left: `${left}%`, width: `${right - left}%`, bottom: `${bottom}%`, height: `${top - bottom}%`,
  });
  return [frame];
}
