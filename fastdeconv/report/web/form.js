// What the forms above the grids of a song and of an atlas share. Gives: layerButtons, offerLabels.

/** Let the buttons of layers call `choose` with the index of a layer, or with null for all layers.
 *  Returns a function that shows which one is chosen. */
function layerButtons(choose) {
  const buttons = [...document.querySelectorAll("[data-layer]")];
  const layerOf = (button) => (button.dataset.layer === "" ? null : Number(button.dataset.layer));
  for (const button of buttons) button.addEventListener("click", () => choose(layerOf(button)));
  return (layer) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(layerOf(button) === layer));
  };
}

/** Offer labels in a list, the most frequent first, each with its count. */
function offerLabels(select, labels) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  select.append(new Option("any", ""));
  for (const [label, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    select.append(new Option(`${label} (${count})`, label));
  }
  select.append(new Option("none", "none"));
}
