// One feature in detail: its map, how it becomes the sound, its spectrum, its numbers.
// Takes page, shown, element; byPlace, frameOf; player; makePanel; versions; cards. Gives: detail.

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

  /** Show the pictures of the version that is heard, and the small ones of every version. */
  function showPictures() {
    for (const [id, caption] of page.versions[versions.current].captions) {
      get(`${id}-caption`).textContent = get(id).alt = caption;
    }
    get("map-picture").src = versions.file(feature, "map");
    get("heard-picture").src = versions.file(feature, "picture");
    for (const button of get("detail").querySelectorAll("[data-shows]")) {
      const { shows, version } = button.dataset;
      button.querySelector("img").src = versions.file(feature, shows, Number(version));
    }
    for (const frame of get("detail").querySelectorAll(".field")) frame.remove();
    for (const axes of get("detail").querySelectorAll(".framed .axes")) axes.append(...frameOf(feature));
    if (get("detail-place")) get("detail-place").textContent = placeText();
  }

  function placeText() {
    const [start, end, low, high] = ["unit_start", "unit_end", "unit_low", "unit_high"].map((key) => {
      const i = page.numbers.findIndex((number) => number.key === key);
      return feature.numbers[i] === null ? null : shown(feature.numbers, i);
    });
    const said = [...(start === null ? [] : [`${start} to ${end}`]), ...(low === null ? [] : [`${low} to ${high}`])];
    return said.length ? `Its strongest unit sees ${said.join(", ")}: the frame in the pictures.` : "";
  }

  function showTrust() {
    if (!feature.verdict) return;
    get("detail-verdict").replaceChildren("Believe it? ", element("b", { textContent: feature.verdict }), `: ${feature.reason}.`);
    const { own, control, meaning } = page.layers[feature.index].said;
    get("detail-shares").textContent =
      `In this clip ${own} of the features of ${feature.layer} are a “yes”, and ${control} of those of an untrained network: ${meaning}.`;
    get("detail-trust").replaceChildren(
      ...page.numbers.flatMap(({ key, name, meaning: says, caveat }, i) => (caveat ? [element("tr", {},
        element("th", { scope: "row" }, `${name} (${key})`, element("small", { textContent: `${says}. Does not prove ${caveat}.` })),
        element("td", { textContent: shown(feature.numbers, i) }))] : [])),
    );
  }

  function show() {
    const count = page.layers[feature.index].features.length;
    get("detail-title").textContent = feature.name;
    get("detail-label").textContent = feature.label;
    showButtons();
    twins();
    get("clip-picture").src = "original.png";
    showPictures();
    get("spectrum").querySelector(".clip").setAttribute("points", points(page.original.spectrum));
    get("spectrum").querySelector(".heard").setAttribute("points", points(feature.spectrum));
    get("detail-numbers").replaceChildren(
      element("tr", {}, element("th", { scope: "row", textContent: "order to hear" }),
        element("td", { textContent: `${feature.rank} of ${count}` }), element("td")),
      ...page.numbers.flatMap(({ name, meaning, caveat }, i) => (caveat ? [] : [element("tr", { title: meaning },
        element("th", { scope: "row", textContent: name }),
        element("td", { textContent: shown(feature.numbers, i) }),
        element("td", { textContent: shown(page.original.numbers, i) }))])),
    );
    showTrust();
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
  versions.onChange(() => { if (feature) showPictures(); });
  return {
    open, close,
    get feature() { return feature; },
    pictures: () => [...get("detail").querySelectorAll(".picture")],
    /** Show another feature if one is shown. */
    follow(other) { if (feature && feature !== other) open(other, { focus: false }); },
  };
})();
