package xep0313

import (
	"strings"

	"mellium.im/xmpp/jid"
)

// prepare returns the JID that s is when it is prepared (RFC 7622). Most that come
// are so already, as their characters tell in a fraction of the time.
func prepare(s string) (string, error) {
	if isPlain(s) {
		return s, nil
	}
	j, err := jid.Parse(s)
	if err != nil {
		return "", err
	}
	return j.String(), nil
}

// text is j.String(), with one allocation.
func text(j jid.JID) string {
	b := make([]byte, 0, 128)
	if localpart := j.Localpart(); localpart != "" {
		b = append(append(b, localpart...), '@')
	}
	b = append(b, j.Domainpart()...)
	if resource := j.Resourcepart(); resource != "" {
		b = append(append(b, '/'), resource...)
	}
	return string(b)
}

// bareOf is the text of a JID without its resource.
func bareOf(text string) string {
	bare, _, _ := strings.Cut(text, "/")
	return bare
}

// isPlain tells whether s is a bare JID or a host with nothing in it that
// preparation could change or refuse.
func isPlain(s string) bool {
	localpart, host, ok := strings.Cut(s, "@")
	if !ok {
		host = s
	}
	return len(s) < 256 && areWords(host, ".-") && (!ok || areWords(localpart, "._-"))
}

// areWords tells whether s is small letters and digits of ASCII, with single
// separators between some of them.
func areWords(s, separators string) bool {
	open := true // for a letter or digit
	for i := range len(s) {
		c := s[i]
		word := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !word && (open || strings.IndexByte(separators, c) < 0) {
			return false
		}
		open = !word
	}
	return !open
}
