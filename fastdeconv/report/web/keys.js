// The keyboard, and going on from feature to feature. Takes page; player, listenToKeys; cards;
// detail.

{
  const move = (steps) => {
    const feature = cards.neighbour(steps);
    if (!feature || feature === cards.current) return;
    if (player.paused) cards.choose(feature);
    else cards.playOrPause(feature);
    detail.follow(feature);
  };

  const onward = document.getElementById("onward");
  const setOnward = () => {
    onward.setAttribute("aria-pressed", String(onward.getAttribute("aria-pressed") !== "true"));
  };
  onward.addEventListener("click", setOnward);
  player.onEnd(() => {
    if (onward.getAttribute("aria-pressed") === "true") cards.goOn();
  });

  const playChosen = () => {
    const { current } = cards;
    if (current ? player.playing?.feature === current : player.playing?.original) player.toggle();
    else cards.playOrPause(current ?? cards.visible[0]);
  };

  const openChosen = () => {
    if (cards.current) detail.open(cards.current);
  };

  const layerKeys = [null, ...page.layers.keys()].slice(0, 10).map(
    (layer, digit) => [digit, () => cards.set({ layer })],
  );
  listenToKeys({
    ...Object.fromEntries(layerKeys),
    " ": playChosen,
    n: setOnward,
    Enter: openChosen,
    Escape: () => detail.close(),
    ArrowRight: () => move(1),
    ArrowLeft: () => move(-1),
    ArrowDown: () => move(cards.columns()),
    ArrowUp: () => move(-cards.columns()),
    ...cards.keys,
  }, ".grid .play");
  // Firefox presses a button when the space bar is let go.
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && event.target.closest(".grid .play")) event.preventDefault();
  });
}
