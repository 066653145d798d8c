package conformance

import (
	"strings"
	"testing"
)

func mustParse(t *testing.T, s string) *Element {
	t.Helper()
	e, err := ParseElement(s)
	if err != nil {
		t.Fatalf("parsing %s: %v", s, err)
	}
	return e
}

// A matcher that cannot fail proves nothing, so most of these must fail, and
// must say where.
func TestMatcher(t *testing.T) {
	const msg = `<message from='a@b/c' to='d@e' type='chat'><body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' id='7' by='d@e'/></message>`
	for _, tc := range []struct {
		name, pattern, got string
		diffs              []string // a part of each line expected; none: must match
	}{
		{"equal", msg, msg, nil},
		{"attributes in any order, other quotes", `<message type="chat" to="d@e" from="a@b/c"><body>hi</body><stanza-id by="d@e" xmlns="urn:xmpp:sid:0" id="7"/></message>`, msg, nil},
		{"children in any order", `<message from='a@b/c' to='d@e' type='chat'><stanza-id xmlns='urn:xmpp:sid:0' id='7' by='d@e'/><body>hi</body></message>`, msg, nil},
		{"prefix instead of default namespace", `<message><body>hi</body><a xmlns='x'/></message>`, `<message xmlns:p='x'><body>hi</body><p:a/></message>`, nil},
		{"wildcards", `<message from='*' to='*' type='*'><body>*</body><stanza-id xmlns='urn:xmpp:sid:0' id='*' by='*'/></message>`, msg, nil},
		{"open content", `<message from='*' to='*' type='*'>...</message>`, msg, nil},
		{"optional attribute absent", `<fin complete='?false'/>`, `<fin/>`, nil},
		{"optional attribute right", `<fin complete='?false'/>`, `<fin complete='false'/>`, nil},
		{"xml:lang is ignored", `<message/>`, `<message xml:lang='en'/>`, nil},
		{"capture binds and matches", `<a x='{{i}}'><b>{{i}}</b></a>`, `<a x='1'><b>1</b></a>`, nil},
		{"white space beside children", `<a> <b/> </a>`, `<a><b/></a>`, nil},
		{"wildcard does not steal its sibling", `<a><b>*</b><b>1</b></a>`, `<a><b>1</b><b>2</b></a>`, nil},
		{"child that may be missing, missing", `<a><b/><c maybe='yes'/></a>`, `<a><b/></a>`, nil},
		{"child that may be missing, there", `<a><b/><c maybe='yes'/></a>`, `<a><b/><c/></a>`, nil},
		{"any element", `<a><any/></a>`, `<a><b x='1'>y</b></a>`, nil},
		{"either", `<a x='1 | 2'>{{i}} | 3</a>`, `<a x='2'>3</a>`, nil},
		{"child that must be missing", `<a>...<b x='1' absent='yes'/></a>`, `<a><b x='2'/></a>`, nil},

		{"child that must be missing, there", `<a>...<b x='1' absent='yes'/></a>`, `<a><b x='1'/></a>`, []string{`a/b: must be absent: <b x='1'/>`}},
		{"child that may be missing, wrong", `<a><c x='1' maybe='yes'/></a>`, `<a><c x='2'/></a>`, []string{`a/c: unexpected: <c x='2'/>`}},
		{"neither", `<a x='1 | 2'/>`, `<a x='3'/>`, []string{`a@x: want one of "1 | 2", got "3"`}},
		{"any element is one element", `<a><any/></a>`, `<a><b/><b/></a>`, []string{`a/b: unexpected`}},
		{"any element is at least one", `<a><any/></a>`, `<a/>`, []string{`a/any: missing`}},
		{"optional attribute wrong", `<fin complete='?false'/>`, `<fin complete='true'/>`, []string{`fin@complete: want "false", got "true"`}},
		{"wrong attribute", `<a x='1'/>`, `<a x='2'/>`, []string{`a@x: want "1", got "2"`}},
		{"missing attribute", `<a x='1'/>`, `<a/>`, []string{`a@x: want "1", it is missing`}},
		{"wildcard still wants the attribute", `<a x='*'/>`, `<a/>`, []string{`a@x: want "*", it is missing`}},
		{"extra attribute", `<a/>`, `<a x='1'/>`, []string{`a@x: unexpected, with value "1"`}},
		{"missing element", `<a><b/><c/></a>`, `<a><b/></a>`, []string{`a/c: missing: <c/>`}},
		{"extra element", `<a><b/></a>`, `<a><b/><c>x</c></a>`, []string{`a/c: unexpected: <c>x</c>`}},
		{"element twice", `<a><b/></a>`, `<a><b/><b/></a>`, []string{`a/b: unexpected`}},
		{"element once too few", `<a><b/><b/></a>`, `<a><b/></a>`, []string{`a/b: missing`}},
		{"open content still wants what is named", `<a>...<b/></a>`, `<a><c/></a>`, []string{`a/b: missing`}},
		{"wrong text", `<a><b>1</b></a>`, `<a><b>2</b></a>`, []string{`a/b: text: want "1", got "2"`}},
		{"white space in text counts", `<a>1 </a>`, `<a>1</a>`, []string{`a: text: want "1 ", got "1"`}},
		{"text where none is wanted", `<a/>`, `<a>1</a>`, []string{`a: text: want "", got "1"`}},
		{"wrong name", `<a/>`, `<b/>`, []string{`a: want <a xmlns='jabber:client'>, got <b xmlns='jabber:client'>`}},
		{"wrong namespace", `<a xmlns='x'/>`, `<a xmlns='y'/>`, []string{`want <a xmlns='x'>, got <a xmlns='y'>`}},
		{"namespace of a child", `<a><b xmlns='x'/></a>`, `<a><b/></a>`, []string{`a/b: missing: <b xmlns='x'/>`, `a/b: unexpected: <b/>`}},
		{"capture does not match", `<a x='{{i}}'><b>{{i}}</b></a>`, `<a x='1'><b>2</b></a>`, []string{`a/b: text: want "1" ({{i}}), got "2"`}},
		{"unbound within a longer value", `<a x='u{{i}}'/>`, `<a x='u1'/>`, []string{`{{i}} is not bound yet`}},
		{"several at once", `<a x='1'><b/></a>`, `<a x='2'><c/></a>`, []string{`a@x: want "1"`, `a/b: missing`, `a/c: unexpected`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			diffs := Match(mustParse(t, tc.pattern), mustParse(t, tc.got), Vars{})
			if len(diffs) != len(tc.diffs) {
				t.Fatalf("want %d differences, got %d:\n%s", len(tc.diffs), len(diffs), strings.Join(diffs, "\n"))
			}
			for i, want := range tc.diffs {
				if !strings.Contains(diffs[i], want) {
					t.Errorf("want a difference with %q, got %q", want, diffs[i])
				}
			}
		})
	}
}

func TestMatcherBindsOnlyOnSuccess(t *testing.T) {
	v := Vars{}
	if diffs := Match(mustParse(t, `<a x='{{i}}'><b/></a>`), mustParse(t, `<a x='1'/>`), v); len(diffs) == 0 {
		t.Fatal("matched without <b/>")
	}
	if len(v) != 0 {
		t.Fatalf("a failed match bound %v", v)
	}
	if diffs := Match(mustParse(t, `<a x='{{i}}'/>`), mustParse(t, `<a x='1'/>`), v); len(diffs) > 0 {
		t.Fatal(diffs)
	}
	if v["i"] != "1" {
		t.Fatalf("want i bound to 1, got %v", v)
	}
	if diffs := Match(mustParse(t, `<a x='{{i}}'/>`), mustParse(t, `<a x='2'/>`), v); len(diffs) != 1 {
		t.Fatalf("a bound capture matched another value: %v", diffs)
	}
}
