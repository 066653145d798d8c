package main

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// harmless makes visible what a terminal would obey, and what would let a text
// pretend to stand elsewhere on the screen: control characters, and the format
// characters that turn the direction of writing.
func harmless(s string) string {
	if !strings.ContainsFunc(s, obeyed) && utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < 0x20:
			return 0x2400 + r // ␀ to ␟
		case r == 0x7f:
			return '␡'
		case obeyed(r):
			return utf8.RuneError
		}
		return r
	}, s)
}

func obeyed(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		r == '\u200e' || r == '\u200f' || r == '\u061c' ||
		'\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069' ||
		'\U000e0000' <= r && r <= '\U000e007f' // tags: text that nobody sees
}

// escaped replaces what a terminal would obey by what escape makes of it: for
// JSON and XML, which have their own way of writing any character. Line feeds
// stay.
func escaped(b []byte, escape func(to []byte, r rune) []byte) []byte {
	if !bytes.ContainsFunc(b, func(r rune) bool { return r != '\n' && obeyed(r) }) {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		if r != '\n' && obeyed(r) {
			out = escape(out, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// appendJSONEscape writes r as JSON does (RFC 8259 section 7): in UTF-16.
func appendJSONEscape(to []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		return fmt.Appendf(to, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(to, `\u%04x`, r)
}

func appendXMLEscape(to []byte, r rune) []byte { return fmt.Appendf(to, "&#%d;", r) }

// isolated keeps text that is written from right to left from reordering what
// stands beside it on the line. s is harmless, so nothing in it ends that early.
func isolated(s string) string {
	if !strings.ContainsFunc(s, rightToLeft) {
		return s
	}
	return "\u2068" + s + "\u2069"
}

// rightToLeft tells whether r stands in a block that Unicode keeps for such
// scripts (UAX #9, table 4: R and AL).
func rightToLeft(r rune) bool {
	return 0x590 <= r && r <= 0x8ff || 0xfb1d <= r && r <= 0xfdff || 0xfe70 <= r && r <= 0xfefe ||
		0x10800 <= r && r <= 0x10fff || 0x1e800 <= r && r <= 0x1efff
}
