// The beginning: shows what the address names. Takes named; features; cards, controls; detail.

{
  const follow = () => {
    const feature = named(features, location.hash);
    if (!feature) return;
    cards.choose(feature);
    detail.open(feature);
  };
  controls.show();
  cards.update();
  window.addEventListener("hashchange", follow);
  follow();
}
