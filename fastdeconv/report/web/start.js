// The beginning: shows what the address names, a feature or a search. Takes named; features; cards,
// controls; detail.

{
  const SEARCH = "#search=";

  function search(text) {
    try {
      controls.search?.(decodeURIComponent(text));
    } catch {
      // not a valid escape: an address someone mistyped
    }
  }

  function follow() {
    if (location.hash.startsWith(SEARCH)) return search(location.hash.slice(SEARCH.length));
    const feature = named(features, location.hash);
    if (!feature) return;
    cards.choose(feature);
    detail.open(feature);
  }

  controls.show();
  cards.update();
  window.addEventListener("hashchange", follow);
  follow();
}
