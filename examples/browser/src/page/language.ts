/**
 * WebKitGTK under the C locale says that the visitor's language is "C", which is none, and uPlot asks Intl for it
 * as soon as it is loaded. To be imported before uPlot.
 */
try {
  Intl.getCanonicalLocales(navigator.language);
} catch {
  Object.defineProperty(navigator, "language", { value: "en" });
}
