package main

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
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
		'\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069'
}

// escaped replaces what a terminal would obey by what format makes of it: for
// JSON and XML, which have their own way of writing any character. Line feeds
// stay.
func escaped(b []byte, format string) []byte {
	if !bytes.ContainsFunc(b, func(r rune) bool { return r != '\n' && obeyed(r) }) {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		if r != '\n' && obeyed(r) {
			out = fmt.Appendf(out, format, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

const (
	escapeJSON = `\u%04x`
	escapeXML  = `&#%d;`
)
