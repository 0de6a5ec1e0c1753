// Several songs: a search over songs and features, and one feature in every song.
// Takes page, shown, element, address, named; player, listenToKeys.

{
  const get = (id) => document.getElementById(id);
  const axes = get("axes");
  const features = page.features.map((feature) => ({
    ...feature,
    name: `${feature.layer}/${feature.k}`,
    hash: address(feature.layer, feature.k),
    ...consensus(feature),
  }));
  let listed = [];
  let open = null;
  let current = null; // the card of the song that is chosen
  const sounds = new WeakMap(); // card -> its sound, and the original of its song

  /** The labels of a feature, and in how many songs the most frequent one is given. */
  function consensus(feature) {
    const counts = new Map();
    for (const song of feature.songs) {
      for (const label of song?.label ? song.label.split(", ") : []) {
        counts.set(label, (counts.get(label) ?? 0) + 1);
      }
    }
    const labels = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
    return { labels, agreed: labels[0]?.[0] === "silent" ? 0 : labels[0]?.[1] ?? 0 };
  }

  function said(feature) {
    const heard = feature.songs.filter(Boolean).length;
    return feature.labels.map(([label, count]) => `${label} ${count}/${heard}`).join(", ");
  }

  /** Show the songs and features that contain all words of the search. */
  function search() {
    const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (text) => words.every((word) => text.toLowerCase().includes(word));
    let songs = 0;
    for (const card of get("songs").children) {
      card.hidden = !matches(page.songs[card.dataset.song].name);
      songs += !card.hidden;
    }
    listed = features.filter((feature) => matches(`${feature.name} ${said(feature)}`));
    // A label that equals the search comes before others that contain it.
    const query = words.join(" ");
    const wanted = ({ labels, agreed }) => {
      const exact = labels.find(([label]) => label === query);
      return exact ? page.songs.length + exact[1] : words.length ? 0 : agreed;
    };
    listed.sort((a, b) => wanted(b) - wanted(a));
    // A search that finds features but no songs leaves all songs in place.
    if (words.length && !songs && listed.length) for (const card of get("songs").children) card.hidden = false;
    get("features").replaceChildren(...listed.map((feature) => element("li", {},
      element("a", { href: feature.hash, textContent: feature.name }),
      element("span", { textContent: said(feature) }))));
    get("count").textContent = `${songs} songs, ${listed.length} features`;
    ready();
  }

  function choose(card) {
    current?.classList.remove("current");
    current = card;
    card.classList.add("current");
    ready();
  }

  function hold(card) {
    const [sound, original] = sounds.get(card);
    // Cards of features come and go, so the pictures are looked up when they are needed.
    const pictures = () => [...get("songs").children, ...get("instances").children]
      .filter((other) => sounds.get(other)?.[0].sound === sound.sound)
      .map((other) => other.querySelector(".picture"));
    player.hold({ ...sound, pictures }, original);
  }

  /** While nothing plays, let the player hold what is chosen, so that its buttons can be used. */
  function ready() {
    if (!player.paused) return;
    const seen = cardsInSight();
    const card = seen.includes(current) ? current : seen[0];
    if (card) hold(card);
  }

  /** Give a card its sound; its picture plays it. */
  function bind(card, sound, original) {
    sounds.set(card, [sound, original]);
    const button = card.querySelector(".play");
    button.addEventListener("click", () => {
      choose(card);
      hold(card);
      player.toggle();
    });
    button.addEventListener("focus", () => choose(card));
  }

  function instance(feature, i) {
    const song = page.songs[i];
    const mine = feature.songs[i];
    const title = element("h3", {}, element("a", { href: `${song.page}${feature.hash}`, textContent: song.name }));
    if (!mine || mine.silent) {
      return element("li", { className: "card" }, title,
        element("p", { className: "label", textContent: mine ? "silent" : "not explained" }));
    }
    const picture = element("button", { className: "play picture" },
      element("img", { src: mine.picture, alt: "", loading: "lazy" }), axes.content.cloneNode(true));
    picture.setAttribute("aria-label", `Play ${feature.name} in ${song.name}${mine.label && `, ${mine.label}`}`);
    const card = element("li", { className: "card" }, picture, title,
      element("p", { className: "label", textContent: mine.label }),
      element("p", { className: "key", textContent: page.numbers.map(({ name }, n) => `${name} ${shown(mine.numbers, n)}`).join(" · ") }));
    const { sound, rms } = mine;
    bind(card, { sound, rms, name: `${feature.name} in ${song.name}`, seconds: song.seconds }, song);
    return card;
  }

  function show(feature) {
    open = feature;
    get("across-title").textContent = `${feature.name} in every song`;
    get("instances").replaceChildren(...page.songs.map((_, i) => instance(feature, i)));
    get("across").hidden = false;
    ready();
    player.refreshHeads();
    if (location.hash !== feature.hash) history.replaceState(null, "", feature.hash);
    get("across").scrollIntoView({ block: "start" });
    get("across").focus({ preventScroll: true });
  }

  function close() {
    if (!open) return;
    open = null;
    get("across").hidden = true;
    ready();
    history.replaceState(null, "", location.pathname + location.search);
    get("search").focus();
  }

  /** The cards with a sound that the keys go through. */
  function cardsInSight() {
    return [...get(open ? "instances" : "songs").children].filter((card) => sounds.has(card) && !card.hidden);
  }

  function move(steps) {
    const seen = cardsInSight();
    const at = seen.indexOf(current);
    const card = seen[at < 0 ? 0 : Math.min(seen.length - 1, Math.max(0, at + steps))];
    if (!card || card === current) return;
    const sounding = !player.paused;
    const button = card.querySelector(".play");
    button.focus();
    choose(card);
    if (sounding) button.click();
  }

  function another(steps) {
    if (!open) return;
    const next = listed[listed.indexOf(open) + steps];
    if (next) show(next);
  }

  listenToKeys({
    " ": player.toggle,
    n: () => another(1),
    p: () => another(-1),
    ArrowRight: () => move(1),
    ArrowLeft: () => move(-1),
    Escape: close,
  });

  for (const card of get("songs").children) {
    const song = page.songs[card.dataset.song];
    bind(card, { ...song, original: true }, song);
  }
  get("search").addEventListener("input", search);
  get("controls").addEventListener("submit", (event) => event.preventDefault());
  get("close").addEventListener("click", close);
  const follow = () => {
    const feature = named(features, location.hash);
    if (feature) show(feature);
  };
  window.addEventListener("hashchange", follow);
  search();
  follow();
}
