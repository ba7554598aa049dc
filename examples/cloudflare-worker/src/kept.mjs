/**
 * A function that makes a value once, for all who ask for it, and keeps it while it is good. What could not be made, or
 * has gone bad since, is made anew at the next call: an isolate lives for hours, and one failure must not end it.
 */
export function kept(make, isGood) {
  let making;
  return async function get() {
    making ??= make();
    const mine = making;
    const forget = () => {
      if (making === mine) making = undefined;
    };
    const value = await mine.catch((error) => {
      forget();
      throw error;
    });
    if (isGood(value)) return value;
    forget();
    return get();
  };
}
