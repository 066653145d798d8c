package xep0313

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"mamlog/xep0313/stanza"
)

// TestLimitsOfAQuery: what is at the limit is answered, one more is refused.
func TestLimitsOfAQuery(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	f.limits.IDs, f.limits.FormFields, f.limits.PreferenceJIDs = 3, 4, 3
	id := f.chat("romeo@test.example/x", "juliet@test.example", "hi").RecipientID.String()
	const juliet = "juliet@test.example/balcony"
	ids := func(n int) []string { return []string{field("ids", slices.Repeat([]string{id}, n)...)} }
	fields := func(n int) (all []string) { // beside FORM_TYPE
		for _, name := range []string{"start", "end", "before-id", "after-id"}[:n] {
			all = append(all, field(name))
		}
		return all
	}
	for _, c := range []struct {
		name     string
		fields   []string
		tooLarge bool
	}{
		{"ids", ids(3), false}, {"more ids", ids(4), true},
		{"fields", fields(3), false}, {"more fields", fields(4), true},
	} {
		want := ""
		if c.tooLarge {
			want = "modify/policy-violation"
		}
		if a := f.query(juliet, c.fields, ""); a.err != want {
			t.Errorf("%s: %q, want %q", c.name, a.err, want)
		}
	}
	prefs := func(always, never int) string {
		return f.read(f.ask(juliet, "set", "", "<prefs xmlns='"+NS+"' default='always'><always>"+strings.Repeat("<jid>a@b</jid>", always)+
			"</always><never>"+strings.Repeat("<jid>c@d</jid>", never)+"</never></prefs>")).err
	}
	if e := prefs(2, 2); e != "modify/policy-violation" {
		t.Errorf("four JIDs: %q", e)
	}
	if p, _, own, err := f.Preferences(jidOf("juliet@test.example")); err != nil || own {
		t.Errorf("refused, and yet %v, %v", p, err)
	}
}

// TestShedding: what is refused because of the load is in no archive and in no
// log, and can be sent again under the same key.
func TestShedding(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	usual := f.limits.QueueBytes
	l := f.hosts["test.example"].Log
	f.chat("romeo@test.example/x", "juliet@test.example", "before")
	last := l.Last()

	f.limits.QueueBytes = 0 // whatever waits is too much
	m := Message{Stanza: f.parse("<message type='chat' from='romeo@test.example/x' to='juliet@test.example'><body>hi</body></message>"),
		From: jidOf("romeo@test.example/x"), To: jidOf("juliet@test.example"), FromLocal: true, ToLocal: true}
	err := f.Record(m, func(Delivery) { t.Error("done is called for what was refused") })
	var se *stanza.Error
	if !errors.As(err, &se) || se.Condition != "resource-constraint" || se.Type != "wait" {
		t.Errorf("Record: %v", err)
	}
	keyed := f.side(in, "juliet@test.example", "romeo@test.example/x", "kept for later")
	keyed.Key = "k"
	if o := f.append(keyed)[0]; !errors.As(o.Err, &se) || se.Condition != "resource-constraint" || o.ID != zeroID {
		t.Errorf("Append: %v", o)
	}
	if l.Last() != last || f.archived("juliet@test.example") != 1 || f.archived("romeo@test.example") != 1 {
		t.Error("what was refused left something behind")
	}

	f.limits.QueueBytes = usual
	first := f.one(keyed)
	if again := f.one(keyed); again.ID != first.ID {
		t.Errorf("appended as %v, and again as %v", first.ID, again.ID)
	}
	if n := l.Queued(); n != 0 {
		t.Errorf("all is acknowledged, and %d bytes count as queued", n)
	}
}
