// The features of a network on a whole collection. Takes page, address, element.
// Gives: features, songs, isSure; how numbers and verdicts are written: valueOf, percent, compact,
// clock, markOf, believed.

const COPY = "copies the input";

/** All features, in the order of the tables, with what is shown and searched of each. */
const features = page.features.map((feature, index) => {
  const layer = page.layers[feature.layer].name;
  const name = `${layer}/${feature.k}`;
  const count = feature.excerpts.length;
  const majority = feature.labels.filter(([, n]) => 2 * n > count);
  const sure = feature.tags.filter(isSure);
  return {
    ...feature,
    index, layerName: layer, name, majority, sure,
    hash: address(layer, feature.k),
    // How many excerpts agree, beyond what is usual. That they copy the input says little.
    agreement: Math.max(0, ...feature.labels.map(([label, n, usual]) => (label === COPY ? 0 : n - usual))) / (count || 1),
    label: majority.map(([label, n]) => `${label} ${n} of ${count}`).join(", "),
    searched: [
      name,
      ...majority.map(([label]) => label),
      ...sure.map((tag) => `${page.attributes[tag.attribute].name} ${tag.label ?? ""}`),
    ].join("\n").toLowerCase(),
    searchedTracks: feature.excerpts.map((excerpt) => page.tracks[excerpt.track].toLowerCase()),
  };
});

for (const feature of features) feature.twins = [];
for (const feature of features) {
  if (feature.twin !== null) features[feature.twin].twins.push(feature);
}

const songs = page.songs.map((song) => ({ ...song, searched: song.name.toLowerCase() }));

/** Whether a correlation is more than chance, and more than an untrained network has. */
function isSure({ q, control }) {
  return q !== null && q <= page.least_q && control !== true;
}

/** A correlation in a few characters: r 0.43, AUC 0.71 (rock), η² 0.20. */
function valueOf(tag) {
  const kind = { r: "r", auc: "AUC", eta2: "η²" }[page.attributes[tag.attribute].kind];
  return `${kind} ${tag.value.toFixed(2).replace("-", "−")}`;
}

/** A share as a percentage that never rounds to a false 0 or 100. */
function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value < 100 && value > 99.9) return "> 99.9 %";
  return `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

/** A number of any size in few characters. */
function compact(value) {
  return value === null ? "–" : String(Number(value.toPrecision(3))).replace("-", "−");
}

/** Seconds in a track as minutes and seconds. */
function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

/** The verdicts, in the order in which they are counted, and the mark of each. */
const VERDICTS = { yes: "✓", unsure: "?", no: "✗", silent: "–" };

/** The mark of a verdict. */
function markOf(verdict) {
  const mark = element("span", { className: "verdict", textContent: VERDICTS[verdict] });
  mark.dataset.verdict = verdict;
  return mark;
}

/** How many excerpts have which verdict. */
function believed({ counts }) {
  return Object.keys(VERDICTS).flatMap((word, i) => (counts[i] ? [`${word} ${counts[i]}`] : [])).join(", ");
}
