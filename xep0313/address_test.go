package xep0313

import (
	"testing"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// TestPrepare: an address that isn't parsed is what parsing it makes of it.
func TestPrepare(t *testing.T) {
	check := func(t rapid.TB, s string) {
		got, err := prepare(s)
		want, wantErr := jid.Parse(s)
		if (err == nil) != (wantErr == nil) || err == nil && got != want.String() {
			t.Fatalf("%q: %q, %v; want %q, %v", s, got, err, want, wantErr)
		}
	}
	for s, plain := range map[string]bool{
		"juliet@capulet.example": true, "capulet.example": true, "a.b_c-1@x-1.2.3.4": true, "10.0.0.1": true, "a@1": true,
		"": false, "@a": false, "a@": false, "a@b@c": false, "a/b": false, "a@b/c": false, "a@b.": false, "a@.b": false,
		"Juliet@a": false, "a@B": false, "a@b_c": false, "a@-b": false, "a@xn--bcher-kva": false, ".a@b": false, "a b@c": false,
	} {
		if isPlain(s) != plain {
			t.Errorf("%q: plain is %t", s, !plain)
		}
		check(t, s)
	}
	gen := rapid.OneOf(rapid.StringMatching(`[a-z0-9.@_-]{1,12}`), rapid.StringMatching(`[a-zA-Z0-9._-]{1,8}@[a-z0-9.-]{1,20}/?`), rapid.String())
	rapid.Check(t, func(t *rapid.T) { check(t, gen.Draw(t, "address")) })
}

func TestTextIsString(t *testing.T) {
	for _, s := range []string{"test.example", "juliet@test.example", "test.example/a", "juliet@test.example/a@b/c"} {
		j := jid.MustParse(s)
		if got := text(j); got != s || bareOf(got) != j.Bare().String() {
			t.Errorf("%s is %q, without its resource %q", s, got, bareOf(got))
		}
	}
}
