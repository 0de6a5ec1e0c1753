// The beginning: shows what the address names. Takes named; features; cards, controls; detail.

{
  const SEARCH = "#search=";
  const follow = () => {
    if (location.hash.startsWith(SEARCH)) {
      try {
        controls.search(decodeURIComponent(location.hash.slice(SEARCH.length)));
      } catch {
        // not a valid escape: an address someone mistyped
      }
      return;
    }
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
