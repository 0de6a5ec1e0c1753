// The panel of one feature, beside the grid. Takes player. Gives: makePanel.

function makePanel(panel) {
  const heading = () => document.querySelector("h1").textContent;
  return {
    /** `shown` has a name and an address. */
    open(shown, { focus = true } = {}) {
      panel.hidden = false;
      document.body.classList.add("with-detail");
      if (location.hash !== shown.hash) history.replaceState(null, "", shown.hash);
      document.title = `${shown.name} · ${heading()}`;
      player.refreshHeads();
      if (focus) panel.focus({ preventScroll: true });
    },
    close() {
      panel.hidden = true;
      document.body.classList.remove("with-detail");
      history.replaceState(null, "", location.pathname + location.search);
      document.title = heading();
      player.refreshHeads();
    },
  };
}
