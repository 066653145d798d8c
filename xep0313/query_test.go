package xep0313

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"mamlog/xep0313/stanza"
)

func mustID(t *testing.T, s string) ulid.ULID {
	t.Helper()
	id, err := ulid.ParseStrict(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// fifteen puts messages 1 to 15 into juliet's archive and returns their ids
// there, from index 1.
func (f *fixture) fifteen() []string {
	ids := []string{""}
	for i := 1; i <= 15; i++ {
		ids = append(ids, f.chat(juliet, romeo, fmt.Sprint(i)).SenderID.String())
	}
	return ids
}

// Every combination of bounds and pages that the XEPs allow, on messages 1 to 15.
// N in a set or field stands for the id of message N.
func TestPages(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	ids := f.fifteen()
	span := func(from, to int) string {
		s := []string{}
		for i := from; i <= to; i++ {
			s = append(s, fmt.Sprint(i))
		}
		return fmt.Sprint(s)
	}
	for _, c := range []struct {
		name     string
		fields   []string
		set      string
		want     string
		count    int
		index    string
		complete bool
	}{
		{"all", nil, "", span(1, 15), 15, "0", true},
		{"first5", nil, "<max>5</max>", span(1, 5), 15, "0", false},
		{"last5", nil, "<max>5</max><before/>", span(11, 15), 15, "10", false},
		{"offset5", nil, "<max>5</max><index>5</index>", span(6, 10), 15, "5", false},
		{"offset15", nil, "<max>5</max><index>15</index>", "[]", 15, "", true},
		{"first0", nil, "<max>0</max>", "[]", 15, "", false},
		{"last0", nil, "<max>0</max><before/>", "[]", 15, "", false},
		{"before10", nil, "<max>5</max><before>@10</before>", span(5, 9), 15, "4", false},
		{"before6 exact", nil, "<max>5</max><before>@6</before>", span(1, 5), 15, "0", true},
		{"before1", nil, "<max>5</max><before>@1</before>", "[]", 15, "", true},
		{"before1 size 0", nil, "<max>0</max><before>@1</before>", "[]", 15, "", true},
		{"before2 size 0", nil, "<max>0</max><before>@2</before>", "[]", 15, "", false},
		{"after10 exact", nil, "<max>5</max><after>@10</after>", span(11, 15), 15, "10", true},
		{"after9", nil, "<max>5</max><after>@9</after>", span(10, 14), 15, "9", false},
		{"after15", nil, "<max>5</max><after>@15</after>", "[]", 15, "", true},
		{"after and before", nil, "<max>3</max><after>@4</after><before>@10</before>", span(7, 9), 15, "6", false},
		{"empty after", nil, "<max>2</max><after/>", span(1, 2), 15, "0", false},
		{"last after-id 5", []string{field("after-id", "@5")}, "<max>5</max><before/>", span(11, 15), 10, "5", false},
		{"between 5 and 11", []string{field("after-id", "@5"), field("before-id", "@11")}, "<max>5</max><before/>", span(6, 10), 5, "0", true},
		{"first after-id 4", []string{field("after-id", "@4")}, "<max>5</max>", span(5, 9), 11, "0", false},
		{"before-id and RSM before", []string{field("before-id", "@9")}, "<max>3</max><before>@12</before>", span(6, 8), 8, "5", false},
		{"before-id and empty before", []string{field("before-id", "@9")}, "<max>3</max><before/>", span(6, 8), 8, "5", false},
		{"after-id and RSM after", []string{field("after-id", "@3")}, "<max>3</max><after>@6</after>", span(7, 9), 12, "3", false},
		{"crossed bounds", []string{field("after-id", "@9"), field("before-id", "@3")}, "", "[]", 0, "", true},
		{"ids", []string{field("ids", "@7", "@2", "@7", "@11")}, "", "[2 7 11]", 3, "0", true},
		{"ids paged", []string{field("ids", "@7", "@2", "@11")}, "<max>1</max><after>@2</after>", "[7]", 3, "1", false},
		{"ids from the end", []string{field("ids", "@7", "@2", "@11")}, "<max>2</max><before/>", "[7 11]", 3, "1", false},
		{"ids with another bound", []string{field("ids", "@7", "@2"), field("after-id", "@2")}, "", "[7]", 1, "0", true},
		{"ids with a contact", []string{field("ids", "@7"), field("with", "nobody@test.example")}, "", "[]", 0, "", true},
		{"with and before", []string{field("with", "romeo@test.example")}, "<max>4</max><before/>", span(12, 15), 15, "11", false},
		{"start and before", []string{field("start", "2000-01-01T00:00:00Z")}, "<max>4</max><before/>", span(12, 15), 15, "11", false},
		{"end in the past", []string{field("end", "2000-01-01T00:00:00Z")}, "", "[]", 0, "", true},
		{"end in year one", []string{field("end", "0001-01-01T00:00:00Z")}, "", "[]", 0, "", true},
		{"start in year one", []string{field("start", "0001-01-01T00:00:00Z")}, "<max>1</max>", "[1]", 15, "0", false},
		{"end before 1970", []string{field("end", "1969-01-01T00:00:00Z")}, "", "[]", 0, "", true},
		{"start in the future", []string{field("start", "2999-01-01T00:00:00+14:00")}, "", "[]", 0, "", true},
		{"open fields", []string{field("start", ""), field("end"), field("with", "")}, "<max>1</max>", "[1]", 15, "0", false},
		{"groupchat field", []string{field("include-groupchat", "false")}, "<max>1</max>", "[1]", 15, "0", false},
	} {
		replace := func(s string) string {
			for i := 15; i > 0; i-- {
				s = strings.ReplaceAll(s, fmt.Sprintf("@%d<", i), ids[i]+"<")
			}
			return s
		}
		fields := c.fields
		for i := range fields {
			fields[i] = replace(fields[i])
		}
		a := f.query(juliet, fields, replace(c.set))
		if fmt.Sprint(a.bodies) != c.want && !(c.want == "[]" && len(a.bodies) == 0) {
			t.Errorf("%s: %v, want %s (%s)", c.name, a.bodies, c.want, a.err)
		}
		if a.count != fmt.Sprint(c.count) || a.index != c.index || a.complete != c.complete {
			t.Errorf("%s: count %s index %q complete %v, want %d %q %v", c.name, a.count, a.index, a.complete, c.count, c.index, c.complete)
		}
		if n := len(a.ids); n > 0 && (a.first != a.ids[0] || a.last != a.ids[n-1]) || n == 0 && a.first+a.last != "" {
			t.Errorf("%s: first %s, last %s of %v", c.name, a.first, a.last, a.ids)
		}
	}
}

func TestFlippedPage(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	ids := f.fifteen()
	q := strings.Replace(queryXML(nil, "<max>5</max><before/>"), "</query>", "<flip-page/></query>", 1)
	a := f.read(f.ask(juliet, "set", "", q))
	if fmt.Sprint(a.bodies) != "[15 14 13 12 11]" || a.first != ids[11] || a.last != ids[15] || a.index != "10" {
		t.Errorf("%+v", a)
	}
}

func TestPageIsLimited(t *testing.T) {
	o := DefaultOptions()
	o.MaxQueryResults = 4
	f := newFixture(t, o, nil)
	f.fifteen()
	for _, set := range []string{"", "<max>100</max>", "<max>4</max>"} {
		if a := f.query(juliet, nil, set); len(a.bodies) != 4 || a.complete || a.count != "15" {
			t.Errorf("%q: %+v", set, a)
		}
	}
}

func TestTimeBoundsAreInclusive(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	f := newFixture(t, DefaultOptions(), func() time.Time { return now })
	for i := range 5 {
		f.chat(juliet, romeo, fmt.Sprint(i))
		now = now.Add(time.Millisecond)
	}
	for _, c := range []struct{ start, end, want string }{
		{"2026-11-22T20:00:00.001Z", "2026-11-22T20:00:00.003Z", "[1 2 3]"},
		{"2026-11-22T20:00:00.001000Z", "2026-11-22T20:00:00.003999999Z", "[1 2 3]"},
		{"2026-11-22T20:00:00.0010001Z", "2026-11-22T20:00:00.0029Z", "[2]"},
		{"2026-11-22T22:30:00.001+02:30", "2026-11-22T12:00:00.001-08:00", "[1]"},
		{"2026-11-22T20:00:00Z", "2026-11-22T20:00:00Z", "[0]"},
		{"2026-11-22T20:00:00.002Z", "2026-11-22T20:00:00.001Z", "[]"},
		{"2026-11-22T20:00:00.00100000000000000000001Z", "", "[1 2 3 4]"},
	} {
		a := f.query(juliet, []string{field("start", c.start), field("end", c.end)}, "")
		if got := fmt.Sprint(a.bodies); got != c.want || a.err != "" {
			t.Errorf("%s to %s: %s %s, want %s", c.start, c.end, got, a.err, c.want)
		}
	}
}

// Many messages of one stamp: paging by id loses none and repeats none.
func TestEqualStampsPageByID(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	f := newFixture(t, DefaultOptions(), func() time.Time { return now })
	var want []string
	for i := range 40 {
		f.chat(juliet, romeo, fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
	}
	var got []string
	set := "<max>7</max>"
	for {
		a := f.query(juliet, []string{field("start", "2026-11-22T20:00:00Z"), field("end", "2026-11-22T20:00:00Z")}, set)
		got = append(got, a.bodies...)
		if a.complete {
			break
		}
		set = "<max>7</max><after>" + a.last + "</after>"
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v", got)
	}
}

func TestErrors(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	f.fifteen()
	foreign := f.chat(juliet, romeo, "x").RecipientID.String() // an id of another archive
	unknown := ulid.Make().String()
	form := func(fields ...string) string { return queryXML(append([]string{}, fields...), "") }
	set := func(s string) string { return queryXML(nil, s) }
	for _, c := range []struct{ name, typ, to, payload, want string }{
		{"unknown field", "set", "", form(field("{http://example.com/}x", "1")), "cancel/feature-not-implemented"},
		{"wrong FORM_TYPE", "set", "", strings.Replace(form(), "<value>urn:xmpp:mam:2", "<value>urn:xmpp:mam:1", 1), "modify/bad-request"},
		{"no FORM_TYPE", "set", "", "<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'>" + field("with", "a@b") + "</x></query>", "modify/bad-request"},
		{"form of another type", "set", "", strings.Replace(form(), "submit", "result", 1), "modify/bad-request"},
		{"two forms", "set", "", strings.Replace(form(), "</query>", "<x xmlns='jabber:x:data' type='submit'/></query>", 1), "modify/bad-request"},
		{"field twice", "set", "", form(field("with", "a@b"), field("with", "a@b")), "modify/bad-request"},
		{"two values", "set", "", form(field("with", "a@b", "c@d")), "modify/bad-request"},
		{"bad JID", "set", "", form(field("with", "a@b@c")), "modify/jid-malformed"},
		{"bad time", "set", "", form(field("start", "yesterday")), "modify/bad-request"},
		{"date only", "set", "", form(field("start", "2026-11-22")), "modify/bad-request"},
		{"no zone", "set", "", form(field("end", "2026-11-22T20:00:00")), "modify/bad-request"},
		{"impossible date", "set", "", form(field("end", "2026-02-30T20:00:00Z")), "modify/bad-request"},
		{"impossible offset", "set", "", form(field("end", "2026-02-20T02:00:00+24:00")), "modify/bad-request"},
		{"hour with one digit", "set", "", form(field("end", "2026-02-20T2:00:00Z")), "modify/bad-request"},
		{"bad boolean", "set", "", form(field("include-groupchat", "maybe")), "modify/bad-request"},
		{"unknown before-id", "set", "", form(field("before-id", unknown)), "cancel/item-not-found"},
		{"unknown after-id", "set", "", form(field("after-id", unknown)), "cancel/item-not-found"},
		{"unknown in ids", "set", "", form(field("ids", unknown)), "cancel/item-not-found"},
		{"unknown before", "set", "", set("<before>" + unknown + "</before>"), "cancel/item-not-found"},
		{"unknown after", "set", "", set("<after>" + unknown + "</after>"), "cancel/item-not-found"},
		{"another archive's id", "set", "", set("<after>" + foreign + "</after>"), "cancel/item-not-found"},
		{"not an id at all", "set", "", set("<after>5</after>"), "cancel/item-not-found"},
		{"lower-case id", "set", "", set("<after>" + strings.ToLower(f.chat(juliet, romeo, "y").SenderID.String()) + "</after>"), "cancel/item-not-found"},
		{"bad max", "set", "", set("<max>many</max>"), "modify/bad-request"},
		{"negative max", "set", "", set("<max>-1</max>"), "modify/bad-request"},
		{"index and after", "set", "", set("<index>1</index><after/>"), "modify/bad-request"},
		{"node", "set", "", "<query xmlns='urn:xmpp:mam:2' node='x'/>", "cancel/feature-not-implemented"},
		{"another's archive", "set", "romeo@test.example", form(), "auth/forbidden"},
		{"another's form", "get", "romeo@test.example", "<query xmlns='urn:xmpp:mam:2'/>", "auth/forbidden"},
		{"another's preferences", "get", "romeo@test.example", "<prefs xmlns='urn:xmpp:mam:2'/>", "auth/forbidden"},
		{"another's metadata", "get", "nobody@other.example", "<metadata xmlns='urn:xmpp:mam:2'/>", "auth/forbidden"},
		{"metadata set", "set", "", "<metadata xmlns='urn:xmpp:mam:2'/>", "cancel/feature-not-implemented"},
		{"unknown request", "get", "", "<nonsense xmlns='urn:xmpp:mam:2'/>", "cancel/feature-not-implemented"},
		{"prefs without default", "set", "", "<prefs xmlns='urn:xmpp:mam:2'/>", "modify/bad-request"},
		{"prefs bad default", "set", "", "<prefs xmlns='urn:xmpp:mam:2' default='sometimes'/>", "modify/bad-request"},
		{"prefs bad JID", "set", "", "<prefs xmlns='urn:xmpp:mam:2' default='never'><never><jid>a@b@c</jid></never></prefs>", "modify/jid-malformed"},
		{"prefs empty JID", "set", "", "<prefs xmlns='urn:xmpp:mam:2' default='never'><never><jid/></never></prefs>", "modify/jid-malformed"},
		{"prefs odd child", "set", "", "<prefs xmlns='urn:xmpp:mam:2' default='never'><maybe/></prefs>", "modify/bad-request"},
		{"prefs too long", "set", "", "<prefs xmlns='urn:xmpp:mam:2' default='never'><never>" + strings.Repeat("<jid>a@b</jid>", f.limits.PreferenceJIDs+1) + "</never></prefs>", "modify/policy-violation"},
	} {
		got := f.ask(juliet, c.typ, c.to, c.payload)
		if len(got) != 1 {
			t.Errorf("%s: %d stanzas", c.name, len(got))
		}
		if a := f.read(got); a.err != c.want {
			t.Errorf("%s: %q, want %q", c.name, a.err, c.want)
		}
	}
	if _, _, own, err := f.Preferences(jidOf(juliet)); own || err != nil {
		t.Errorf("a refused request left preferences behind: %v, %v", own, err)
	}
}

func TestPreferencesRequests(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	get := func() string {
		s := f.ask(juliet, "get", "juliet@test.example", "<prefs xmlns='urn:xmpp:mam:2'/>")
		return string(s[0].First().Bytes())
	}
	if got := get(); got != "<prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never/></prefs>" {
		t.Errorf("before any were set: %s", got)
	}
	const want = "<prefs xmlns='urn:xmpp:mam:2' default='roster'><always><jid>paris@x.test</jid><jid>romeo@montague.lit/Orchard</jid></always><never/></prefs>"
	s := f.ask(juliet, "set", "", `<prefs xmlns='urn:xmpp:mam:2' default='roster'>
		<always> <jid> ROMEO@montague.lit/Orchard </jid>
		<jid>paris@X.test</jid><jid>paris@x.test</jid></always></prefs>`)
	if got := string(s[0].First().Bytes()); got != want {
		t.Errorf("set: %s", got)
	}
	if got := get(); got != want {
		t.Errorf("get: %s", got)
	}
	n := 0
	for c, err := range f.main.PreferenceHistory("juliet@test.example") {
		if n++; err != nil || c.Change.Actor != juliet || c.Change.Before != nil {
			t.Errorf("history: %v, %v", c, err)
		}
	}
	if n != 1 {
		t.Errorf("%d entries in the history", n)
	}
}

func TestMetadata(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	f := newFixture(t, DefaultOptions(), func() time.Time { return now })
	get := func() string {
		return string(f.ask(juliet, "get", "", "<metadata xmlns='urn:xmpp:mam:2'/>")[0].First().Bytes())
	}
	if got := get(); got != "<metadata xmlns='urn:xmpp:mam:2'/>" {
		t.Errorf("empty: %s", got)
	}
	first := f.chat(juliet, romeo, "x").SenderID
	now = now.Add(1500 * time.Millisecond)
	last := f.chat(romeo, "juliet@test.example", "y").RecipientID
	want := fmt.Sprintf("<metadata xmlns='urn:xmpp:mam:2'><start id='%s' timestamp='2026-11-22T20:00:00.000Z'/><end id='%s' timestamp='2026-11-22T20:00:01.500Z'/></metadata>", first, last)
	if got := get(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFormIsOpen(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	x := f.ask(juliet, "get", "", "<query xmlns='urn:xmpp:mam:2'/>")[0].First().Child(NSForm, "x")
	var got []string
	for _, e := range x.Elements() {
		got = append(got, e.Attr("var")+":"+e.Attr("type"))
		if e.Child(NSForm, "required") != nil {
			t.Errorf("%s is required", e.Attr("var"))
		}
		if v := e.Child("http://jabber.org/protocol/xdata-validate", "validate"); e.Attr("var") == "ids" && v.First() == nil {
			t.Error("ids is not open")
		}
	}
	want := "[FORM_TYPE:hidden with:jid-single start:text-single end:text-single before-id:text-single after-id:text-single ids:list-multi include-groupchat:boolean]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v", got)
	}
}

// A stored stanza can't break out of the page it is spliced into.
func TestHostileContentStaysInside(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	st := stanza.New(stanza.NSClient, "message", "id", `'/><evil a='`, "from", juliet, "to", romeo)
	st.Attrs = append(st.Attrs, stanza.Attr{Space: "urn:x'>", Local: "lang", Value: "\"'<&>"})
	st.Add(stanza.New(stanza.NSClient, "body").AddText("</body></message></forwarded></result></message><message/>\x00\uFFFE\xff"))
	done := make(chan Delivery, 1)
	if err := f.Record(Message{Stanza: st, From: jidOf(juliet), To: jidOf(romeo), FromLocal: true, ToLocal: true}, func(d Delivery) { done <- d }); err != nil {
		t.Fatal(err)
	}
	<-done
	s := f.ask(romeo, "set", "", queryXML(nil, ""))
	if len(s) != 2 {
		t.Fatalf("%d stanzas", len(s))
	}
	m := s[0].First().First().Child(stanza.NSClient, "message")
	if m.Attr("id") != `'/><evil a='` || len(m.Elements()) != 1 || !strings.HasPrefix(m.ChildText(stanza.NSClient, "body"), "</body></message>") {
		t.Errorf("got %s", m.Bytes())
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add(queryXML([]string{field("with", "a@b"), field("start", "2026-11-22T20:00:00Z"), field("ids", "01ARZ3NDEKTSV4RRFFQ69G5FAV")}, "<max>5</max><before/>"))
	f.Add(queryXML(nil, "<index>3</index>"))
	f.Fuzz(func(t *testing.T, s string) {
		e, err := stanza.Parse([]byte(s))
		if err != nil {
			return
		}
		q, err := parseQuery(e, 50, Limits{}.withDefaults())
		if err == nil && (q.Max > 50 || q.Max < 0) {
			t.Errorf("max is %d", q.Max)
		}
		if _, ok := err.(*stanza.Error); err != nil && !ok {
			t.Errorf("%T is not for the client: %v", err, err)
		}
		if _, err := parsePrefs(e); err != nil {
			if _, ok := err.(*stanza.Error); !ok {
				t.Errorf("%T is not for the client: %v", err, err)
			}
		}
	})
}
