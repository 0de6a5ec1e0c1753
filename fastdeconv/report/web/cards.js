// The grid: which features are shown, in which order, and which one is chosen.
// Takes page, shown, element; layerButtons, offerLabels; features, byPlace, frameOf; player;
// versions; detail. Gives: cards, controls.

const cards = (() => {
  const grid = document.getElementById("grid");
  const axes = document.getElementById("axes");
  const elements = new Map(); // place -> card
  const unfolded = new Set(); // places of features whose twins are shown
  let visible = [];
  let current = null;

  const VERDICTS = ["yes", "unsure", "no", "silent"]; // the best first
  const state = { layer: null, label: "", verdict: "", sort: "rank", reverse: false, bounded: null, least: null, most: null };

  for (const card of grid.children) elements.set(card.dataset.at, card);

  const twinsOf = new Map();
  for (const feature of features) {
    if (feature.twin === null) continue;
    const place = `${feature.index}/${feature.twin}`;
    twinsOf.set(place, [...(twinsOf.get(place) ?? []), feature]);
  }

  function passes(feature) {
    if (feature.silent) return false;
    if (state.layer !== null && feature.index !== state.layer) return false;
    const labels = feature.label ? feature.label.split(", ") : [];
    if (state.label === "none" ? labels.length : state.label && !labels.includes(state.label)) return false;
    if (state.verdict && feature.verdict !== state.verdict) return false;
    if (state.bounded === null) return true;
    const value = feature.numbers[state.bounded];
    if (value === null) return false;
    const scaled = page.numbers[state.bounded].percent ? 100 * value : value;
    return (state.least === null || scaled >= state.least) && (state.most === null || scaled <= state.most);
  }

  function order(a, b) {
    const sign = state.reverse ? -1 : 1;
    if (state.sort === "rank") return sign * (a.rank - b.rank || a.index - b.index);
    if (state.sort === "k") return sign * (a.index - b.index || a.k - b.k);
    if (state.sort === "verdict") {
      const [one, other] = [a, b].map(({ verdict }) => VERDICTS.indexOf(verdict));
      return sign * (one - other) || a.rank - b.rank || a.index - b.index;
    }
    // Numbers: the largest first. Features without the number come last in either order.
    const [x, y] = [a.numbers[state.sort], b.numbers[state.sort]];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (y - x) || a.index - b.index || a.rank - b.rank;
  }

  /** The features to show. Twins follow the feature under which they are folded, if it is unfolded. */
  function chosen() {
    const passing = features.filter(passes);
    const there = new Set(passing.map((feature) => feature.at));
    const heads = passing.filter(
      (feature) => feature.twin === null || !there.has(`${feature.index}/${feature.twin}`),
    );
    return heads.sort(order).flatMap((head) => {
      const twins = (twinsOf.get(head.at) ?? []).filter((twin) => there.has(twin.at));
      return unfolded.has(head.at) ? [head, ...twins.sort(order)] : [head];
    });
  }

  function keyNumbers(feature) {
    const wanted = ["level", "centroid", "onset"].map((key) => page.numbers.findIndex((n) => n.key === key));
    for (const also of [state.bounded, typeof state.sort === "number" ? state.sort : null]) {
      if (also !== null && !wanted.includes(also)) wanted.push(also);
    }
    return wanted.map((i) => `${page.numbers[i].name} ${shown(feature.numbers, i)}`).join(" · ");
  }

  function twinButton(feature, card) {
    const twins = twinsOf.get(feature.at);
    if (!twins) return;
    let button = card.querySelector(".twins");
    if (!button) {
      button = element("button", { className: "twins", type: "button" });
      button.addEventListener("click", () => {
        if (!unfolded.delete(feature.at)) unfolded.add(feature.at);
        update();
      });
      card.append(button);
    }
    const open = unfolded.has(feature.at);
    button.textContent = `${open ? "−" : "+"} ${twins.length} ${twins.length === 1 ? "twin" : "twins"}`;
    button.setAttribute("aria-expanded", String(open));
  }

  function update() {
    visible = chosen();
    const there = new Set(visible.map((feature) => feature.at));
    for (const [place, card] of elements) card.hidden = !there.has(place);
    for (const feature of visible) {
      const card = elements.get(feature.at);
      card.querySelector(".key").textContent = keyNumbers(feature);
      twinButton(feature, card);
      grid.append(card); // into its place in the order
    }
    const folded = features.filter(passes).length - visible.length;
    document.getElementById("count").textContent =
      `${visible.length} shown${folded ? `, ${folded} ${folded === 1 ? "twin" : "twins"} folded` : ""}`;
    ready();
  }

  /** Choose a feature. Its card gets the focus, unless `focus` is false. */
  function choose(feature, { focus = true } = {}) {
    const folds = feature.twin !== null && `${feature.index}/${feature.twin}`;
    if (!visible.includes(feature) && !feature.silent) {
      if (folds) unfolded.add(folds);
      if (state.layer !== null && state.layer !== feature.index) set({ layer: feature.index });
      if (!passes(feature)) set({ label: "", verdict: "", bounded: null });
      update();
    }
    if (current) elements.get(current.at)?.classList.remove("current");
    current = feature;
    ready();
    const card = elements.get(feature.at);
    card?.classList.add("current");
    if (card && focus) {
      card.querySelector(".play").focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    }
  }

  function soundOf(feature) {
    const silent = versions.rms(feature) === 0 ? " (silent)" : "";
    return {
      name: versions.current ? `${feature.name}, ${versions.name}${silent}` : feature.name,
      sound: versions.file(feature, "sound"), rms: versions.rms(feature), feature,
      seconds: page.seconds, pictures: () => picturesOf(feature),
    };
  }

  function hold(feature) {
    player.hold(soundOf(feature), page.original);
  }

  function holdOriginal() {
    const picture = document.querySelector("[data-original]");
    player.hold({ ...page.original, name: "original", original: true, seconds: page.seconds, pictures: () => [picture] }, page.original);
  }

  /** While nothing plays, let the player hold what is chosen, so that its buttons can be used. */
  function ready() {
    if (!player.paused) return;
    const feature = current ?? visible[0];
    if (feature) hold(feature); else holdOriginal();
  }

  /** What a click on the picture of a feature does. */
  function playOrPause(feature) {
    choose(feature);
    hold(feature);
    player.toggle();
  }

  function picturesOf(feature) {
    const card = elements.get(feature.at);
    const inDetail = detail.feature === feature ? detail.pictures() : [];
    return [...(card ? [card.querySelector(".picture")] : []), ...inDetail];
  }

  /** The feature `steps` further in the order shown. */
  function neighbour(steps) {
    const at = current ? visible.indexOf(current) : -1;
    if (at < 0) return visible[0];
    return visible[Math.min(visible.length - 1, Math.max(0, at + steps))];
  }

  /** Play the next feature after a sound has ended. */
  function goOn() {
    const next = neighbour(1);
    if (player.playing.original || next === player.playing.feature) return;
    playOrPause(next);
    detail.follow(next);
  }

  function columns() {
    return getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  }

  function set(changes) {
    Object.assign(state, changes);
    controls.show();
    update();
  }

  // Axes are added when a picture comes into sight: thousands of ticks would slow the page down.
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      target.querySelector(".picture").append(axes.content.cloneNode(true));
      target.querySelector(".axes").append(...frameOf(byPlace.get(target.dataset.at)));
      seen.unobserve(target);
      if (player.playing?.feature?.at === target.dataset.at) player.refreshHeads();
    }
  }, { rootMargin: "1000px" });
  for (const card of elements.values()) seen.observe(card);

  grid.addEventListener("click", (event) => {
    const button = event.target.closest(".play");
    if (!button) return;
    const feature = byPlace.get(button.closest(".card").dataset.at);
    playOrPause(feature);
    detail.follow(feature);
  });
  grid.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (card) choose(byPlace.get(card.dataset.at), { focus: false });
  });
  document.querySelector("[data-original]").addEventListener("click", () => {
    holdOriginal();
    player.toggle();
  });
  versions.onChange(() => {
    for (const [place, card] of elements) {
      card.querySelector("img").src = versions.file(byPlace.get(place), "picture");
    }
    const { feature } = player.playing;
    if (feature) player.change(soundOf(feature), page.original);
  });
  player.onChange(() => {
    const sounding = player.paused ? null : player.playing.feature;
    if (sounding && !current) choose(sounding, { focus: false });
  });
  return {
    state, set, update, choose, hold, holdOriginal, playOrPause, neighbour, columns, goOn, twinsOf,
    keys: page.versions.length > 1 ? { m: versions.next } : {}, // of its own
    get current() { return current; },
    get visible() { return visible; },
  };
})();

// The form above the grid.
const controls = (() => {
  const get = (id) => document.getElementById(id);
  offerLabels(get("label"), features.flatMap((feature) => (feature.silent || !feature.label ? [] : feature.label.split(", "))));
  const showLayer = layerButtons((layer) => cards.set({ layer }));

  const number = (value) => (value.trim() === "" || Number.isNaN(Number(value)) ? null : Number(value));

  get("controls").addEventListener("submit", (event) => event.preventDefault());
  get("label").addEventListener("change", (event) => cards.set({ label: event.target.value }));
  get("verdict")?.addEventListener("change", (event) => cards.set({ verdict: event.target.value }));
  get("places")?.addEventListener("click", ({ target }) => {
    const hidden = document.body.classList.toggle("without-frames");
    target.setAttribute("aria-pressed", String(!hidden));
  });
  for (const button of document.querySelectorAll("[data-version]")) {
    button.addEventListener("click", () => versions.set(Number(button.dataset.version)));
  }
  get("sort").addEventListener("change", (event) => {
    const { value } = event.target;
    cards.set({ sort: ["rank", "k", "verdict"].includes(value) ? value : Number(value) });
  });
  get("reverse").addEventListener("click", () => cards.set({ reverse: !cards.state.reverse }));
  get("bounded").addEventListener("change", (event) => {
    cards.set({ bounded: event.target.value === "" ? null : Number(event.target.value) });
  });
  for (const id of ["least", "most"]) {
    get(id).addEventListener("input", (event) => cards.set({ [id]: number(event.target.value) }));
  }

  return {
    /** Show the state of the grid. */
    show() {
      const { layer, label, verdict, sort, reverse, bounded } = cards.state;
      showLayer(layer);
      get("label").value = label;
      if (get("verdict")) get("verdict").value = verdict;
      get("sort").value = String(sort);
      get("reverse").setAttribute("aria-pressed", String(reverse));
      get("bounded").value = bounded === null ? "" : String(bounded);
      get("least").disabled = get("most").disabled = bounded === null;
    },
  };
})();
