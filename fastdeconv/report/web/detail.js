// One feature in detail: its map, how it becomes the sound, its spectrum, its numbers.
// Takes page, features, shown, element; player; makePanel; cards. Gives: detail.

const detail = (() => {
  const get = (id) => document.getElementById(id);
  const panel = makePanel(get("detail"));
  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  let feature = null;

  /** A spectrum as points of the chart, 100 wide and 60 high. */
  function points(spectrum) {
    return [...spectrum].map((digit, i) => {
      const x = (100 * (i + 0.5)) / spectrum.length;
      return `${x.toFixed(2)},${(60 * (1 - DIGITS.indexOf(digit) / 63)).toFixed(2)}`;
    }).join(" ");
  }

  function link(other) {
    return element("a", { href: other.hash, textContent: other.name });
  }

  function twins() {
    const group = cards.twinsOf.get(feature.at);
    const head = feature.twin === null ? null : byPlace.get(`${feature.index}/${feature.twin}`);
    get("detail-twins").replaceChildren(
      ...(head ? ["Twin of ", link(head), "."] : []),
      ...(group ? ["Twins: ", ...group.flatMap((twin, i) => (i ? [", ", link(twin)] : [link(twin)])), "."] : []),
    );
  }

  /** The buttons act on this feature, whatever sounds. */
  function listen(act) {
    cards.hold(feature);
    act();
  }

  function showButtons() {
    if (!feature) return;
    const held = player.playing.feature === feature;
    const sounding = held && !player.paused;
    const act = sounding ? "Pause" : "Play";
    get("detail-play").textContent = `${sounding ? "❚❚" : "▶"} ${act}`;
    get("detail-play").setAttribute("aria-label", `${act} ${feature.name}`);
    get("detail-ab").setAttribute("aria-pressed", String(held && player.hearsOriginal));
  }

  function show() {
    const count = page.layers[feature.index].features.length;
    get("detail-title").textContent = feature.name;
    get("detail-label").textContent = feature.label;
    showButtons();
    twins();
    get("clip-picture").src = "original.png";
    get("map-picture").src = feature.map;
    get("heard-picture").src = feature.picture;
    get("spectrum").querySelector(".clip").setAttribute("points", points(page.original.spectrum));
    get("spectrum").querySelector(".heard").setAttribute("points", points(feature.spectrum));
    get("detail-numbers").replaceChildren(
      element("tr", {}, element("th", { scope: "row", textContent: "to hear as number" }),
        element("td", { textContent: `${feature.rank} of ${count}` }), element("td")),
      ...page.numbers.map(({ name, meaning }, i) => element("tr", { title: meaning },
        element("th", { scope: "row", textContent: name }),
        element("td", { textContent: shown(feature.numbers, i) }),
        element("td", { textContent: shown(page.original.numbers, i) }))),
    );
    get("detail-files").replaceChildren("Files: ",
      element("a", { href: feature.sound, textContent: "sound" }), ", ",
      element("a", { href: feature.picture, textContent: "picture" }), ", ",
      element("a", { href: feature.map, textContent: "map" }),
      ...(page.atlas ? [". ", element("a", { href: `${page.atlas}${feature.hash}`, textContent: "This feature in the atlas" }), "."] : []));
  }

  function open(wanted, options) {
    feature = wanted;
    show();
    panel.open(wanted, options);
  }

  function close() {
    if (!feature) return;
    const last = feature;
    feature = null;
    panel.close();
    cards.choose(last);
  }

  get("close").addEventListener("click", close);
  get("detail-play").addEventListener("click", () => listen(player.toggle));
  get("detail-ab").addEventListener("click", () => listen(player.swap));
  player.onChange(showButtons);
  return {
    open, close,
    get feature() { return feature; },
    pictures: () => [...get("detail").querySelectorAll(".picture")],
    /** Show another feature if one is shown. */
    follow(other) { if (feature && feature !== other) open(other, { focus: false }); },
  };
})();
