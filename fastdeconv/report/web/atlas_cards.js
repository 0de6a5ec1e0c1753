// The grid of an atlas: which features are shown, in which order, which one is chosen.
// Only cards near the screen exist. Takes page, element; layerButtons, offerLabels; features, songs,
// percent, valueOf, clock, markOf, believed; player; detail. Gives: cards, controls.

const cards = (() => {
  const get = (id) => document.getElementById(id);
  const grid = get("grid");
  const made = new Map(); // feature -> its card, of those that exist
  let visible = [];
  let current = null;
  let excerpt = 0; // of the current feature

  const state = {
    layer: null, words: [], label: "", tag: null, sort: "agreement", reverse: false,
    twins: false, silent: false, originals: false,
  };

  // ---- which, in which order ----

  const tagOf = (feature) => feature.tags.find((tag) => tag.attribute === state.tag && isSure(tag));

  const holds = (text) => state.words.every((word) => text.includes(word));
  /** How many excerpts are from songs that match the search. */
  const matching = (feature) => feature.searchedTracks.filter(holds).length;

  function passes(feature) {
    if (state.layer !== null && feature.layer !== state.layer) return false;
    if (state.tag !== null && !tagOf(feature)) return false;
    const labels = feature.majority.map(([label]) => label);
    if (state.label === "none" ? labels.length || feature.silent : state.label && !labels.includes(state.label)) return false;
    return !state.words.length || holds(feature.searched) || matching(feature) > 0;
  }

  const keys = {
    number: (feature) => -feature.index,
    agreement: (feature) => feature.agreement,
    found: (feature) => (holds(feature.searched) ? page.shown : 0) + matching(feature),
    often: (feature) => (feature.often ?? -1) + (feature.active ?? 0) / 1e3, // most fire in all windows
    believed: (feature) => (feature.believed ? feature.believed.counts[0] - (feature.believed.control ?? 0) : -1),
    tag: (feature) => (state.tag === null ? feature.sure[0] : tagOf(feature))?.effect ?? -1,
  };

  function chosen() {
    const passing = features.filter((feature) => (state.silent || !feature.silent) && passes(feature));
    const there = new Set(passing);
    const key = keys[state.words.length ? "found" : state.sort];
    const sign = state.reverse ? -1 : 1;
    return passing
      .filter((feature) => state.twins || feature.twin === null || !there.has(features[feature.twin]))
      .sort((a, b) => sign * (key(b) - key(a)) || a.index - b.index);
  }

  function update() {
    visible = chosen();
    for (const card of made.values()) card.remove();
    made.clear();
    draw();
    const folded = features.filter((f) => (state.silent || !f.silent) && passes(f)).length - visible.length;
    const silent = state.silent ? 0 : features.filter((f) => f.silent && passes(f)).length;
    const parts = [`${visible.length} ${visible.length === 1 ? "feature" : "features"}`];
    if (folded) parts.push(`${folded} ${folded === 1 ? "twin" : "twins"} folded`);
    if (silent) parts.push(`${silent} that never fired hidden`);
    get("count").textContent = parts.join(", ");
    get("nothing").hidden = visible.length > 0;
    ready();
  }

  // ---- only what is near the screen ----

  let height = 0; // of a row with the gap under it

  function columns() {
    return getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  }

  function measure() {
    const probe = grid.appendChild(element("li", { className: "card" }));
    height = probe.offsetHeight + parseFloat(getComputedStyle(grid).rowGap);
    probe.remove();
  }

  function draw() {
    if (!height) measure();
    const across = columns();
    const rows = Math.ceil(visible.length / across);
    const top = -grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(rows - 1, Math.floor((top - innerHeight) / height)));
    const last = Math.min(rows, Math.ceil((top + 2 * innerHeight) / height));
    const wanted = visible.slice(first * across, Math.max(last, first) * across);
    const there = new Set(wanted);
    for (const [feature, card] of made) {
      if (!there.has(feature)) {
        card.remove();
        made.delete(feature);
      }
    }
    grid.style.paddingTop = `${first * height}px`;
    grid.style.paddingBottom = `${Math.max(0, rows - Math.max(last, first)) * height}px`;
    let before = null;
    for (const feature of wanted) {
      let card = made.get(feature);
      if (!card) {
        card = build(feature);
        made.set(feature, card);
      }
      if (card !== (before ? before.nextSibling : grid.firstChild)) grid.insertBefore(card, before ? before.nextSibling : grid.firstChild);
      card.setAttribute("aria-posinset", visible.indexOf(feature) + 1);
      card.setAttribute("aria-setsize", visible.length);
      before = card;
    }
    if (player.playing && there.has(player.playing.feature)) player.refreshHeads();
  }

  let asked = 0;
  const redraw = () => {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(draw);
  };
  window.addEventListener("scroll", redraw, { passive: true });
  window.addEventListener("resize", () => { height = 0; redraw(); });
  // The help and the list of songs above the grid change their height.
  new ResizeObserver(redraw).observe(get("main"));

  // ---- a card ----

  function picture(one) {
    return `${one.file}_${state.originals ? "original" : "heard"}.png`;
  }

  function tile(feature, one, i) {
    const button = element("button", { className: "play tile" },
      element("img", { src: picture(one), alt: "", loading: "lazy" }),
      ...(one.verdict ? [markOf(one.verdict)] : []));
    button.dataset.excerpt = i;
    const verdict = one.verdict ? `; to be believed: ${one.verdict}` : "";
    button.title = `${i + 1}. ${page.tracks[one.track]}, ${clock(one.at)}${verdict}`;
    button.setAttribute("aria-label", `Play excerpt ${i + 1} of ${feature.name}: ${page.tracks[one.track]}${verdict}`);
    return button;
  }

  function marks(feature) {
    const found = [];
    if (feature.silent) found.push("never fires");
    if (feature.twin !== null) found.push(`twin of ${features[feature.twin].k}`);
    if (feature.twins.length) found.push(`+ ${feature.twins.length} ${feature.twins.length === 1 ? "twin" : "twins"}`);
    return found.join(", ");
  }

  /** Two lines: how often it fires, and how many excerpts match the search or its strongest tag. */
  function facts(feature) {
    if (feature.silent) return ["above 0 nowhere in the collection"];
    const found = [`fires: ${percent(feature.often)} windows, ${percent(feature.active)} places`];
    const searched = state.words.length ? matching(feature) : 0;
    if (searched) found.push(`${searched} of ${feature.excerpts.length} found`);
    const tag = state.tag === null ? feature.sure[0] : tagOf(feature);
    if (tag && !searched) found.push(`${valueOf(tag)} ${page.attributes[tag.attribute].name}${tag.label ? ` (${tag.label})` : ""}`);
    return found;
  }

  /** One line: how many excerpts have which verdict, and an untrained network's share of “yes”. */
  function trusted({ believed: found }) {
    const control = found?.control === null || found?.control === undefined ? "" : `; untrained: yes ${percent(found.control)}`;
    const text = found ? `believe: ${believed(found)}${control}` : "";
    return element("p", { className: "key", textContent: text, title: text });
  }

  function build(feature) {
    const card = element("li", { className: feature === current ? "card current" : "card" },
      element("h3", {}, element("a", { href: feature.hash, textContent: feature.name }),
        element("span", { className: "twin", textContent: marks(feature) })),
      element("div", { className: "nine" },
        ...feature.excerpts.slice(0, 9).map((one, i) => tile(feature, one, i)),
        ...(feature.excerpts.length ? [] : [element("p", { className: "hint", textContent: feature.silent ? "No excerpts: it never fired." : "No excerpts could be made." })])),
      element("p", { className: "label", textContent: feature.label }),
      ...(page.verdicts ? [trusted(feature)] : []),
      ...facts(feature).map((text) => element("p", { className: "key", textContent: text, title: text })));
    card.dataset.feature = feature.index;
    if (feature.twin !== null) card.dataset.twin = "";
    return card;
  }

  // ---- what is chosen, and what plays ----

  /** Choose a feature and one of its excerpts. Its card gets the focus, unless `focus` is false. */
  function choose(feature, { focus = true, at = feature === current ? excerpt : 0 } = {}) {
    if (!visible.includes(feature)) {
      Object.assign(state, { words: [], label: "", tag: null, twins: state.twins || feature.twin !== null, silent: state.silent || feature.silent });
      get("search").value = "";
      set(state.layer === null || state.layer === feature.layer ? {} : { layer: feature.layer });
    }
    made.get(current)?.classList.remove("current");
    current = feature;
    excerpt = at;
    made.get(feature)?.classList.add("current");
    if (focus) {
      reveal(feature);
      const button = made.get(feature)?.querySelector(`[data-excerpt="${at}"]`) ?? made.get(feature)?.querySelector("a");
      button?.focus({ preventScroll: true });
    }
    ready();
  }

  /** Scroll so that a card is on the screen. */
  function reveal(feature) {
    const row = Math.floor(visible.indexOf(feature) / columns());
    const top = grid.getBoundingClientRect().top + row * height;
    const free = innerHeight - document.querySelector(".transport").offsetHeight;
    let by = 0;
    if (top < 8) by = top - 8;
    else if (top + height > free) by = Math.min(top - 8, top + height - free);
    if (by) window.scrollBy({ top: by, behavior: "instant" });
    draw();
  }

  function hold(feature, i) {
    const one = feature.excerpts[i];
    if (!one) return;
    const [heard, original] = one.rms;
    player.hold(
      {
        name: `${feature.name} in ${page.tracks[one.track]}, ${clock(one.at)}`,
        sound: `${one.file}_heard.${page.suffix}`, rms: heard, seconds: one.seconds,
        feature, excerpt: i, pictures: () => picturesOf(feature, i),
      },
      { sound: `${one.file}_original.${page.suffix}`, rms: original },
    );
  }

  /** While nothing plays, let the player hold what is chosen, so that its buttons can be used. */
  function ready() {
    if (!player.paused) return;
    const feature = current ?? visible.find((one) => one.excerpts.length);
    if (feature) hold(feature, feature === current ? excerpt : 0);
  }

  /** What a click on a picture does. */
  function playOrPause(feature, at) {
    if (!feature?.excerpts.length) {
      if (feature) choose(feature);
      return;
    }
    choose(feature, at === undefined ? {} : { at });
    hold(feature, excerpt);
    player.toggle();
  }

  function picturesOf(feature, i) {
    const tile = made.get(feature)?.querySelector(`[data-excerpt="${i}"]`);
    return [...(tile ? [tile] : []), ...(detail.feature === feature ? detail.pictures(i) : [])];
  }

  /** The feature `steps` further in the order shown. */
  function neighbour(steps) {
    const at = current ? visible.indexOf(current) : -1;
    if (at < 0) return visible[0];
    return visible[Math.min(visible.length - 1, Math.max(0, at + steps))];
  }

  /** Another excerpt of the feature; it plays if something does. */
  function another(steps) {
    const feature = current ?? visible[0];
    if (!feature?.excerpts.length) return;
    const at = current ? Math.min(feature.excerpts.length - 1, Math.max(0, excerpt + steps)) : 0;
    if (player.paused || at === player.playing?.excerpt) choose(feature, { at });
    else playOrPause(feature, at);
    detail.follow(feature);
  }

  /** After an excerpt has ended, play the next one, or after the last one the next feature. */
  function goOn() {
    const { feature } = player.playing;
    if (excerpt + 1 < feature.excerpts.length) return playOrPause(feature, excerpt + 1);
    const next = neighbour(1);
    if (next !== feature) playOrPause(next, 0);
    detail.follow(next);
  }

  function set(changes) {
    Object.assign(state, changes);
    controls.show();
    update();
  }

  grid.addEventListener("click", (event) => {
    const button = event.target.closest(".play");
    if (!button) return;
    const feature = features[button.closest(".card").dataset.feature];
    playOrPause(feature, Number(button.dataset.excerpt));
    detail.follow(feature);
  });
  grid.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    const at = event.target.dataset.excerpt;
    choose(features[card.dataset.feature], { focus: false, ...(at === undefined ? {} : { at: Number(at) }) });
  });
  return {
    state, set, update, choose, playOrPause, neighbour, columns, goOn,
    keys: {
      j: () => another(1), k: () => another(-1),
      "/": () => get("search").focus(),
    },
    get current() { return current; },
    get visible() { return visible; },
  };
})();

// The form above the grid.
const controls = (() => {
  const get = (id) => document.getElementById(id);
  const MOST_SONGS = 50;
  offerLabels(get("label"), features.flatMap(({ majority }) => majority.map(([label]) => label)));
  const showLayer = layerButtons((layer) => cards.set({ layer }));

  function link(feature) {
    return element("a", { href: feature.hash, textContent: feature.name });
  }

  /** Songs that hold all words. */
  function showSongs(words) {
    const found = words.length ? songs.filter((song) => words.every((word) => song.searched.includes(word))) : [];
    get("songs").hidden = !found.length;
    get("songs-title").textContent = `${found.length} ${found.length === 1 ? "song" : "songs"}`;
    get("songs-found").replaceChildren(...found.slice(0, MOST_SONGS).map((song) => element("li", {},
      song.page ? element("a", { href: song.page, textContent: song.name }) : element("b", { textContent: song.name }),
      element("span", {}, ...song.features.flatMap((index, i) => [i ? ", " : "", link(features[index])])))));
    get("songs-more").textContent = found.length > MOST_SONGS ? `The first ${MOST_SONGS}: a longer search finds fewer.` : "";
  }

  function search() {
    const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    showSongs(words);
    cards.set({ words });
  }

  get("controls").addEventListener("submit", (event) => event.preventDefault());
  get("search").addEventListener("input", search);
  get("search").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !get("search").value) return;
    get("search").value = "";
    search();
    event.stopPropagation();
  });
  get("label").addEventListener("change", (event) => cards.set({ label: event.target.value }));
  get("tag")?.addEventListener("change", (event) => {
    const tag = event.target.value === "" ? null : Number(event.target.value);
    cards.set({ tag, sort: tag === null ? cards.state.sort : "tag" });
  });
  get("sort").addEventListener("change", (event) => cards.set({ sort: event.target.value }));
  for (const id of ["reverse", "twins", "silent", "originals"]) {
    get(id).addEventListener("click", () => cards.set({ [id]: !cards.state[id] }));
  }
  get("twins").hidden = !features.some((feature) => feature.twin !== null);
  get("silent").hidden = !features.some((feature) => feature.silent);

  return {
    search(text) {
      get("search").value = text;
      search();
    },
    /** Show the state of the grid. */
    show() {
      const { layer, label, tag, sort } = cards.state;
      showLayer(layer);
      get("label").value = label;
      if (get("tag")) get("tag").value = tag === null ? "" : String(tag);
      get("sort").value = sort;
      for (const id of ["reverse", "twins", "silent", "originals"]) {
        get(id).setAttribute("aria-pressed", String(cards.state[id]));
      }
    },
  };
})();
