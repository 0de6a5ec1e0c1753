// The keyboard, and going on from feature to feature. Takes page; player; cards; detail.

{
  const move = (steps) => {
    const feature = cards.neighbour(steps);
    if (!feature) return;
    const sounding = player.playing && !player.paused;
    if (sounding) cards.play(feature);
    else cards.choose(feature);
    detail.follow(feature);
  };

  const onward = document.getElementById("onward");
  const setOnward = () => {
    onward.setAttribute("aria-pressed", String(onward.getAttribute("aria-pressed") !== "true"));
  };
  onward.addEventListener("click", setOnward);
  player.onEnd(() => {
    const next = cards.neighbour(1);
    const last = player.playing.original || next === player.playing.feature;
    if (onward.getAttribute("aria-pressed") !== "true" || last) return;
    cards.play(next);
    detail.follow(next);
  });

  const playChosen = () => {
    const feature = cards.current ?? cards.visible[0];
    if (player.playing && (player.playing.original ? !cards.current : player.playing.feature === feature)) player.toggle();
    else if (feature && !feature.silent) cards.play(feature);
    else player.toggle();
  };

  const openChosen = () => {
    if (cards.current) detail.open(cards.current);
  };

  const keys = {
    " ": playChosen,
    a: () => player.swap(),
    b: () => player.swap(),
    n: setOnward,
    l: () => player.setLoop(!player.loop),
    Enter: openChosen,
    Escape: () => detail.close(),
    ArrowRight: () => move(1),
    ArrowLeft: () => move(-1),
    ArrowDown: () => move(cards.columns()),
    ArrowUp: () => move(-cards.columns()),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { target, key } = event;
    // Whoever types, chooses from a list or moves a slider keeps the keys.
    if (target.closest("input, select, textarea") && key !== "Escape") return;
    // Other buttons and links are pressed as everywhere.
    if ((key === " " || key === "Enter") && target.closest("button:not(.grid .play), a, summary")) return;
    if (/^[0-9]$/.test(key) && Number(key) <= page.layers.length) {
      cards.set({ layer: key === "0" ? null : Number(key) - 1 });
    } else if (keys[key.length === 1 ? key.toLowerCase() : key]) {
      keys[key.length === 1 ? key.toLowerCase() : key]();
    } else {
      return;
    }
    event.preventDefault();
  });
  // Firefox presses a button when the space bar is let go.
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && event.target.closest(".grid .play")) event.preventDefault();
  });
}
