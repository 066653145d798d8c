// Package admit counts, so that nobody takes the place of everybody.
//
// A Bound lets each key hold only so many places at once; a Rate tells when
// somebody has had too many tries in a minute. Both forget whom they need not
// remember: their memory is bounded by who is here now, or by what they were told
// at most, and not by who ever came. They decide nothing: whoever asks them says
// what refusal means.
//
// All methods are safe for concurrent use. The package does no input or output.
package admit
