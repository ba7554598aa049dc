/**
 * What people say to a house, by what they want of it. `learn` is for training; `test` only the trained model hears. In
 * each, `do` are orders ("please ..."), `say` are remarks. # stands for the room, @ for what is set.
 */
export const ROOMS = ["kitchen", "bedroom", "bathroom", "living room", "hall", "office", "garage", "attic"];

const MUSIC = ["jazz", "rock", "piano", "radio"];
const PERCENT = [20, 40, 60, 80];
const DEGREES = [16, 18, 20, 22];

export const WISHES = [
  {
    device: "light",
    set: ["on"],
    learn: {
      do: [
        "turn on the light in the #",
        "turn the # light on",
        "switch on the # lights",
        "switch the lights on in the #",
        "put the light on in the #",
        "light up the #",
        "make it bright in the #",
        "give me some light in the #",
        "get it bright in the #",
        "make it nice and bright in the #",
        "get some light into the #",
      ],
      say: [
        "# light on",
        "I need some light in the #",
        "it is too dark in the #",
        "it is so dark in the #",
        "the # is dark",
        "it is far too dark in the #",
        "it should be bright in the #",
        "we are in the dark in the #",
        "lights on for the #",
      ],
    },
    test: {
      do: ["switch on the light in the #", "turn on the # lights", "make the # bright"],
      say: ["the # is too dark", "we need light in the #", "lights on in the #"],
    },
  },
  {
    device: "light",
    set: ["off"],
    learn: {
      do: [
        "turn off the light in the #",
        "turn the # light off",
        "switch off the # lights",
        "switch the lights off in the #",
        "put the light off in the #",
        "put out the light in the #",
        "make it dark in the #",
        "take the light off in the #",
        "get it dark in the #",
        "make it nice and dark in the #",
        "get the light out of the #",
      ],
      say: [
        "# light off",
        "I need no light in the #",
        "it is too bright in the #",
        "no more light in the #",
        "the # is bright",
        "it is far too bright in the #",
        "it should be dark in the #",
        "we are in too much light in the #",
        "lights off for the #",
      ],
    },
    test: {
      do: ["switch off the light in the #", "turn off the # lights", "make the # dark"],
      say: ["the # is too bright", "we need no light in the #", "lights off in the #"],
    },
  },
  {
    device: "light",
    set: PERCENT,
    learn: {
      do: [
        "dim the # light to @ percent",
        "set the light in the # to @ percent",
        "dim the lights in the # to @ percent",
        "put the # lights at @ percent",
        "bring the light in the # to @ percent",
        "give me @ percent of light in the #",
        "make the # light @ percent",
        "turn the light in the # to @ percent",
        "change the # light to @ percent",
        "get the light in the # to @ percent",
      ],
      say: [
        "# light at @ percent",
        "I want the # light at @ percent",
        "@ percent of light in the #",
        "the # light should be at @ percent",
        "the light of the # at @ percent",
      ],
    },
    test: {
      do: ["dim the light in the # to @ percent", "set the # lights to @ percent", "bring the # light to @ percent"],
      say: [
        "I want @ percent of light in the #",
        "the light in the # should be at @ percent",
        "lights in the # at @ percent",
      ],
    },
  },
  {
    device: "heating",
    set: ["on"],
    learn: {
      do: [
        "turn on the heating in the #",
        "turn the # heating on",
        "switch on the # heating",
        "switch the heating on in the #",
        "start the heating in the #",
        "heat the #",
        "make it warm in the #",
        "give me some heat in the #",
        "get it warm in the #",
        "make it nice and warm in the #",
        "start to heat the #",
      ],
      say: [
        "# heating on",
        "I need some heat in the #",
        "it is too cold in the #",
        "it is so cold in the #",
        "the # is cold",
        "it is far too cold in the #",
        "it should be warm in the #",
        "we are cold in the #",
        "heating on for the #",
      ],
    },
    test: {
      do: ["switch on the heating in the #", "start the # heating", "make the # warm"],
      say: ["the # is too cold", "we need heat in the #", "heating on in the #"],
    },
  },
  {
    device: "heating",
    set: ["off"],
    learn: {
      do: [
        "turn off the heating in the #",
        "turn the # heating off",
        "switch off the # heating",
        "switch the heating off in the #",
        "stop the heating in the #",
        "leave the # cold",
        "make it cool in the #",
        "take the heat off in the #",
        "get it cool in the #",
        "make it nice and cool in the #",
        "stop to heat the #",
      ],
      say: [
        "# heating off",
        "I need no heat in the #",
        "it is too hot in the #",
        "no more heat in the #",
        "the # is hot",
        "it is far too hot in the #",
        "it should be cool in the #",
        "we are hot in the #",
        "heating off for the #",
      ],
    },
    test: {
      do: ["switch off the heating in the #", "stop the # heating", "make the # cool"],
      say: ["the # is too hot", "we need no heat in the #", "heating off in the #"],
    },
  },
  {
    device: "heating",
    set: DEGREES,
    learn: {
      do: [
        "heat the # to @ degrees",
        "set the heating in the # to @ degrees",
        "make it @ degrees in the #",
        "warm the # up to @ degrees",
        "put the # heating at @ degrees",
        "bring the # to @ degrees",
        "keep the # at @ degrees",
        "give me @ degrees in the #",
        "change the # heating to @ degrees",
        "get the # to @ degrees",
      ],
      say: [
        "# heating at @ degrees",
        "I want @ degrees in the #",
        "@ degrees in the #",
        "it should be @ degrees in the #",
        "the heating of the # at @ degrees",
      ],
    },
    test: {
      do: ["set the # heating to @ degrees", "make the # @ degrees", "bring the heating in the # to @ degrees"],
      say: ["I want the # at @ degrees", "the # should be at @ degrees", "heating in the # at @ degrees"],
    },
  },
  {
    device: "blinds",
    set: ["open"],
    learn: {
      do: [
        "open the blinds in the #",
        "open the # blinds",
        "pull up the blinds in the #",
        "raise the # blinds",
        "put the # blinds up",
        "let the sun into the #",
        "let some daylight into the #",
        "take the blinds up in the #",
        "get the # blinds up",
      ],
      say: [
        "# blinds up",
        "# blinds open",
        "I want the sun in the #",
        "the blinds in the # should be open",
        "let there be sun in the #",
      ],
    },
    test: {
      do: ["pull up the # blinds", "raise the blinds in the #", "let the daylight into the #"],
      say: ["the # blinds should be open", "blinds up in the #", "I want the # blinds up"],
    },
  },
  {
    device: "blinds",
    set: ["closed"],
    learn: {
      do: [
        "close the blinds in the #",
        "close the # blinds",
        "pull down the blinds in the #",
        "lower the # blinds",
        "put the # blinds down",
        "keep the sun out of the #",
        "keep some daylight out of the #",
        "take the blinds down in the #",
        "get the # blinds down",
      ],
      say: [
        "# blinds down",
        "# blinds closed",
        "I want no sun in the #",
        "the blinds in the # should be closed",
        "let there be no sun in the #",
      ],
    },
    test: {
      do: ["pull down the # blinds", "lower the blinds in the #", "keep the daylight out of the #"],
      say: ["the # blinds should be closed", "blinds down in the #", "I want the # blinds down"],
    },
  },
  {
    device: "door",
    set: ["locked"],
    learn: {
      do: [
        "lock the # door",
        "lock the door of the #",
        "keep the # door locked",
        "lock up the #",
        "bolt the door of the #",
        "make sure the # door is locked",
        "let nobody into the #",
        "see that the # door is locked",
      ],
      say: [
        "# door locked",
        "the # door should be locked",
        "I want the door of the # locked",
        "the door of the # must be locked",
      ],
    },
    test: {
      do: ["bolt the # door", "make sure the door of the # is locked", "keep the door of the # locked"],
      say: ["the door of the # should be locked", "door of the # locked", "I want the # door locked"],
    },
  },
  {
    device: "door",
    set: ["unlocked"],
    learn: {
      do: [
        "unlock the # door",
        "unlock the door of the #",
        "keep the # door unlocked",
        "unlock the # again",
        "unbolt the door of the #",
        "make sure the # door is unlocked",
        "let me into the #",
        "see that the # door is unlocked",
      ],
      say: [
        "# door unlocked",
        "the # door should be unlocked",
        "I want the door of the # unlocked",
        "the door of the # must be unlocked",
      ],
    },
    test: {
      do: ["unbolt the # door", "make sure the door of the # is unlocked", "keep the door of the # unlocked"],
      say: ["the door of the # should be unlocked", "door of the # unlocked", "I want the # door unlocked"],
    },
  },
  {
    device: "music",
    set: MUSIC,
    learn: {
      do: [
        "play @ in the #",
        "play some @ in the #",
        "put on @ in the #",
        "start the @ in the #",
        "let me hear some @ in the #",
        "turn on the @ in the #",
        "give me some @ in the #",
        "let us hear @ in the #",
      ],
      say: ["# music, @", "I want to hear @ in the #", "some @ for the #", "@ in the #", "it is time for @ in the #"],
    },
    test: {
      do: ["put on some @ in the #", "start some @ in the #", "let me hear @ in the #"],
      say: ["I want some @ in the #", "@ for the #", "I want to hear some @ in the #"],
    },
  },
  {
    device: "music",
    set: ["off"],
    learn: {
      do: [
        "stop the music in the #",
        "turn off the music in the #",
        "turn the # music off",
        "switch the # music off",
        "put the music off in the #",
        "make it quiet in the #",
        "take the music off in the #",
        "get it quiet in the #",
        "make it nice and quiet in the #",
        "stop what is playing in the #",
      ],
      say: [
        "# music off",
        "it is too loud in the #",
        "no more music in the #",
        "I need no music in the #",
        "the # is loud",
        "it is far too loud in the #",
        "it should be quiet in the #",
      ],
    },
    test: {
      do: ["switch off the music in the #", "stop the # music", "make the # quiet"],
      say: ["the # is too loud", "we need no music in the #", "music off in the #"],
    },
  },
];

/** When, as it is said, by how it is written. What is wanted now is not said. */
export const WHEN = {
  morning: {
    learn: ["in the morning", "tomorrow morning", "at dawn"],
    test: ["every morning", "in the early morning"],
  },
  evening: { learn: ["in the evening", "this evening", "at dusk"], test: ["every evening", "tomorrow evening"] },
  night: { learn: ["at night", "tonight", "at midnight"], test: ["every night", "in the night"] },
};

export const OPENINGS = {
  learn: { do: ["", "", "please ", "now ", "hey, ", "could you "], say: ["", "", "hey, ", "well, "] },
  test: { do: ["", "", "hey, please ", "could you please "], say: ["", "", "oh, "] },
};
