// The features of the song. Takes page, address. Gives: features, byPlace.

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
