// The rule and mode by which features are seen and heard: those that were explained, or others for
// which there are sounds. Takes page. Gives: versions.

const versions = (() => {
  let current = 0;
  const listeners = [];

  /** A file of a feature in this version. */
  function place(path, version) {
    const { key } = page.versions[version];
    return key ? path.replace(/[^/]*$/, `${key}/$&`) : path;
  }

  function set(version) {
    current = version;
    for (const button of document.querySelectorAll("[data-version]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.version) === current));
    }
    for (const listener of listeners) listener();
  }

  return {
    get current() { return current; },
    get name() { return page.versions[current].name; },
    set,
    next() { set((current + 1) % page.versions.length); },
    onChange: (listener) => listeners.push(listener),
    /** `what` is "sound", "picture" or "map". */
    file: (feature, what, version = current) => place(feature[what], version),
    rms: (feature) => (current ? feature.versions[current - 1] : feature.rms),
  };
})();
