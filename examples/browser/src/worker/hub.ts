/** The hub that models come from: the build says which, and the page's policy lets it reach no other. */
declare const __HUB__: string;

export const HUB = __HUB__;
