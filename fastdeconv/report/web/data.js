// The features of the song. Takes page, address, frameAround. Gives: features, byPlace, frameOf.

/** All features, layer by layer, those to hear first at the beginning of each. */
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

/** A list with a frame around what the strongest unit of a feature sees; empty if that is unknown. */
function frameOf(feature) {
  return feature.box ? [frameAround(feature.box)] : [];
}
