package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// Case is a case of the checklist that needs a loop or a computation and is
// therefore no transcript.
type Case struct {
	Name   string
	Config string // options of the host, as YAML lines
	run    func(testing.TB, *scene)
}

// Cases are all of them.
func Cases() []Case {
	return []Case{
		{"messages_filtered_when_prefs_default_policy_is_always", "", truthTable("always")},
		{"messages_filtered_when_prefs_default_policy_is_never", "", truthTable("never")},
		{"messages_filtered_when_prefs_default_policy_is_roster", "", truthTable("roster")},
		{"run_set_and_get_prefs_cases", "", setAndGetPrefs},
		{"get_set_prefs", "", getSetPrefs},
		{"mam_proper_SUITE", "", properBodies(false)},
		{"attribute_white_space", "", properBodies(true)},
		{"xep_equal_timestamps", "", equalTimestamps},
		{"xep_several_resources_once", "", severalResources},
		{"large_messages", "", largeMessages},
		{"forged_sender", "", forgedSender},
		{"xep_ids_survive_removal", "archive_expires_after: 2\n", retention},
	}
}

// scene is two people of a case's own.
type scene struct {
	host          Host
	ctx           context.Context
	suffix        string
	juliet, romeo *Client
}

func newScene(t testing.TB, h Host, name string) *scene {
	t.Helper()
	suffix := strings.ToLower(strings.ReplaceAll(name, "_", "-")) + "-" + newID()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	sc := &scene{host: h, ctx: ctx, suffix: suffix}
	for _, u := range []string{"juliet-", "romeo-"} {
		if err := h.AddUser(ctx, u+suffix); err != nil {
			t.Fatal(err)
		}
	}
	sc.juliet = sc.dial(t, "juliet", "balcony")
	sc.romeo = sc.dial(t, "romeo", "orchard")
	return sc
}

func (sc *scene) dial(t testing.TB, user, resource string) *Client {
	t.Helper()
	c, err := sc.host.Dial(sc.ctx, user+"-"+sc.suffix, resource)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// send sends a chat message with a body and returns its live copy.
func send(t testing.TB, from, to *Client, body string) *Element {
	t.Helper()
	if err := from.Send("<message to='" + to.JID + "' type='chat'><body>" + escape(body) + "</body></message>"); err != nil {
		t.Fatal(err)
	}
	e, err := to.Next()
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Child("body").Content(); got != body {
		t.Fatalf("sent %q, arrived:\n%s", body, e)
	}
	return e
}

func call(t testing.TB, c *Client, typ, payload string) *Element {
	t.Helper()
	e, err := c.Call(typ, payload)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func bodiesOf(messages []Archived) (out []string) {
	for _, m := range messages {
		out = append(out, m.Body())
	}
	return out
}

// prefsXML writes preferences as a client sets them.
func prefsXML(def string, always, never []string) string {
	list := func(name string, jids []string) string {
		var b strings.Builder
		for _, j := range jids {
			b.WriteString("<jid>" + escape(j) + "</jid>")
		}
		return "<" + name + ">" + b.String() + "</" + name + ">"
	}
	return "<prefs xmlns='" + nsMAM + "' default='" + def + "'>" + list("always", always) + list("never", never) + "</prefs>"
}

// wordPrefs words the preferences in an answer, lists sorted.
func wordPrefs(answer *Element) string {
	p := answer.Child("{" + nsMAM + "}prefs")
	if answer.Attr("type") != "result" || p == nil || p.Child("always") == nil || p.Child("never") == nil {
		return "no preferences: " + oneLine(answer)
	}
	list := func(name string) (jids []string) {
		for _, j := range p.Child(name).Children {
			jids = append(jids, j.Text)
		}
		slices.Sort(jids)
		return jids
	}
	return fmt.Sprintf("%s %v %v", p.Attr("default"), list("always"), list("never"))
}

// truthTable tries every combination of where romeo is listed and whether he
// is a contact, in both directions: a list beats the default, and the roster
// matters to the default roster alone.
func truthTable(def string) func(testing.TB, *scene) {
	return func(t testing.TB, sc *scene) {
		var want []string
		for _, contact := range []bool{false, true} {
			subscription := " subscription='remove'"
			if contact {
				subscription = ""
			}
			roster := call(t, sc.juliet, "set", "<query xmlns='jabber:iq:roster'><item jid='"+sc.romeo.Bare+"'"+subscription+"/></query>")
			// Removing who is no contact may well be an error.
			if contact && roster.Attr("type") != "result" {
				t.Fatal(roster)
			}
			for _, list := range []string{"", "always", "never"} {
				for _, entry := range []string{sc.romeo.Bare, sc.romeo.JID} {
					var always, never []string
					archived := def == "always" || (def == "roster" && contact)
					switch list {
					case "always":
						always, archived = []string{entry}, true
					case "never":
						never, archived = []string{entry}, false
					}
					name := fmt.Sprintf("default %s, contact %v, listed %q as %s", def, contact, list, entry)
					answer := call(t, sc.juliet, "set", prefsXML(def, always, never))
					if got := wordPrefs(answer); got != fmt.Sprintf("%s %v %v", def, always, never) {
						t.Fatalf("%s: set answered %s", name, got)
					}
					in := send(t, sc.romeo, sc.juliet, "in: "+name)
					if _, n := StanzaID(in, sc.juliet.Bare); n == 1 != archived {
						t.Errorf("%s: the live message carries %d ids, want archived %v", name, n, archived)
					}
					send(t, sc.juliet, sc.romeo, "out: "+name)
					if archived {
						want = append(want, "in: "+name, "out: "+name)
					}
				}
			}
		}
		got, err := sc.juliet.Walk("", 50)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(bodiesOf(got), want) {
			t.Errorf("archived:\n%s\nwant:\n%s", strings.Join(bodiesOf(got), "\n"), strings.Join(want, "\n"))
		}
	}
}

// setAndGetPrefs: lists come back without duplicates and in prepared form.
func setAndGetPrefs(t testing.TB, sc *scene) {
	for _, tc := range []struct {
		def                   string
		always, never         []string
		wantAlways, wantNever []string
	}{
		{def: "always"},
		{def: "never"},
		{def: "roster"},
		{"never", []string{"a@b.example"}, nil, []string{"a@b.example"}, nil},
		{"never", []string{"a@b.example", "a@b.example"}, nil, []string{"a@b.example"}, nil},
		{"never", []string{"a@b.example", "A@B.example"}, nil, []string{"a@b.example"}, nil},
		{"always", nil, []string{"c@b.example", "a@b.example", "b@b.example"}, nil, []string{"a@b.example", "b@b.example", "c@b.example"}},
		{"roster", []string{"a@b.example/One", "a@b.example/one"}, []string{"b.example"}, []string{"a@b.example/One", "a@b.example/one"}, []string{"b.example"}},
		{"roster", []string{"a@b.example", "a@b.example/x"}, []string{"c@b.example"}, []string{"a@b.example", "a@b.example/x"}, []string{"c@b.example"}},
	} {
		want := fmt.Sprintf("%s %v %v", tc.def, tc.wantAlways, tc.wantNever)
		if got := wordPrefs(call(t, sc.juliet, "set", prefsXML(tc.def, tc.always, tc.never))); got != want {
			t.Errorf("set %v answered %s, want %s", tc, got, want)
		}
		if got := wordPrefs(call(t, sc.juliet, "get", "<prefs xmlns='"+nsMAM+"'/>")); got != want {
			t.Errorf("get after set %v answered %s, want %s", tc, got, want)
		}
	}
}

// getSetPrefs is ejabberd's: every default with every pair of lists.
func getSetPrefs(t testing.TB, sc *scene) {
	lists := [][]string{nil, {"x@test.example"}, {"x@test.example", "y@test.example"}}
	for _, def := range []string{"always", "never", "roster"} {
		for _, always := range lists {
			for _, never := range [][]string{nil, {"z@test.example"}} {
				want := fmt.Sprintf("%s %v %v", def, always, never)
				call(t, sc.juliet, "set", prefsXML(def, always, never))
				if got := wordPrefs(call(t, sc.juliet, "get", "<prefs xmlns='"+nsMAM+"'/>")); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		}
	}
}

// properBodies: whatever XML can carry survives, live and archived, in text and in
// attributes; breaks says whether these have tabs and line breaks, too.
func properBodies(breaks bool) func(testing.TB, *scene) {
	return func(t testing.TB, sc *scene) {
		const seed = 20260101
		rng := rand.New(rand.NewPCG(seed, 0))
		var want []string
		for range 120 {
			body := randomText(rng)
			origin := strings.TrimSpace(randomText(rng)) + "."
			if !breaks {
				origin = strings.NewReplacer("\t", ".", "\n", ".").Replace(origin)
			}
			err := sc.romeo.Send("<message to='" + sc.juliet.JID + "' type='chat'><body>" + escape(body) +
				"</body><origin-id xmlns='" + nsSID + "' id='" + escapeAttr(origin) + "'/></message>")
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, body+"\x00"+origin)
		}
		words := func(m *Element) string {
			return m.Child("body").Content() + "\x00" + m.Child("{"+nsSID+"}origin-id").Attr("id")
		}
		for i, w := range want {
			e, err := sc.juliet.Next()
			if err != nil {
				t.Fatal(err)
			}
			if got := words(e); got != w {
				t.Fatalf("live message %d (seed %d): got %q, want %q", i, seed, got, w)
			}
		}
		for _, owner := range []*Client{sc.juliet, sc.romeo} {
			got, err := owner.Walk("", 50)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("%d messages archived, want %d", len(got), len(want))
			}
			for i, w := range want {
				if g := words(got[i].Message); g != w {
					t.Fatalf("%s: archived message %d (seed %d): got %q, want %q", owner.Bare, i, seed, g, w)
				}
			}
		}
	}
}

// randomText draws from all planes that XML 1.0 allows, white space included.
func randomText(rng *rand.Rand) string {
	ranges := [][2]rune{{' ', '~'}, {' ', '~'}, {'\t', '\n'}, {0xa0, 0xd7ff}, {0xe000, 0xfffd}, {0x10000, 0x10ffff}}
	var b strings.Builder
	for range 1 + rng.IntN(60) {
		r := ranges[rng.IntN(len(ranges))]
		b.WriteRune(r[0] + rng.Int32N(r[1]-r[0]+1))
	}
	return b.String()
}

// escapeAttr keeps tabs and line breaks, which attribute normalisation turns
// into spaces where they stand as they are.
func escapeAttr(s string) string {
	return strings.NewReplacer("\t", "&#9;", "\n", "&#10;").Replace(escape(s))
}

// equalTimestamps: a burst shares stamps; bounds by time alone lose nothing and
// double nothing.
func equalTimestamps(t testing.TB, sc *scene) {
	const n = 400
	var burst strings.Builder
	for i := range n {
		fmt.Fprintf(&burst, "<message to='%s' type='chat'><body>%d</body></message>", sc.juliet.JID, i)
	}
	if err := sc.romeo.Send(burst.String()); err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := sc.juliet.Next(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := sc.juliet.Walk("", 50)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != n {
		t.Fatalf("%d messages archived, want %d", len(all), n)
	}
	var stamps []string // distinct, in order
	for i, m := range all {
		if m.Body() != fmt.Sprint(i) {
			t.Fatalf("message %d is %q: the burst's order is lost", i, m.Body())
		}
		if len(stamps) == 0 || stamps[len(stamps)-1] != m.Stamp {
			if slices.Contains(stamps, m.Stamp) {
				t.Fatalf("stamp %s came back after %s", m.Stamp, stamps[len(stamps)-1])
			}
			stamps = append(stamps, m.Stamp)
		}
	}
	t.Logf("%d messages share %d stamps", n, len(stamps))
	for i, stamp := range stamps {
		first := slices.IndexFunc(all, func(m Archived) bool { return m.Stamp == stamp })
		next := n
		if i+1 < len(stamps) {
			next = slices.IndexFunc(all, func(m Archived) bool { return m.Stamp == stamps[i+1] })
		}
		for _, tc := range []struct {
			words string
			want  []Archived
		}{
			{"start=" + stamp, all[first:]},
			{"end=" + stamp, all[:next]},
			{"start=" + stamp + " end=" + stamp, all[first:next]},
		} {
			p, err := sc.juliet.Ask(tc.words + " max=0")
			if err != nil {
				t.Fatal(err)
			}
			if p.Count() != len(tc.want) {
				t.Errorf("%s: count %d, want %d", tc.words, p.Count(), len(tc.want))
			}
			if i%10 != 0 {
				continue // one in ten page by page is plenty
			}
			got, err := sc.juliet.Walk(tc.words, 50)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(bodiesOf(got), bodiesOf(tc.want)) {
				t.Errorf("%s: %d messages, want %d, or their order differs", tc.words, len(got), len(tc.want))
			}
		}
	}
}

// severalResources: who is online twice has one archived copy, and every
// resource that is sent the message is told the same id.
func severalResources(t testing.TB, sc *scene) {
	chamber := sc.dial(t, "juliet", "chamber")
	if err := sc.romeo.Send("<message to='" + sc.juliet.Bare + "' type='chat'><body>once</body></message>"); err != nil {
		t.Fatal(err)
	}
	// Which of the two gets it is the server's choice (RFC 6121, section 8.5.2);
	// a later stanza to each shows that nothing is on its way any more.
	ids := map[string]bool{}
	copies := 0
	for _, c := range []*Client{sc.juliet, chamber} {
		if err := sc.romeo.Send("<message to='" + c.JID + "' type='headline'><subject>over</subject></message>"); err != nil {
			t.Fatal(err)
		}
		for {
			e, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if e.Attr("type") == "headline" {
				break
			}
			id, n := StanzaID(e, sc.juliet.Bare)
			if n != 1 {
				t.Errorf("a live copy carries %d ids: %s", n, e)
			}
			ids[id] = true
			copies++
		}
	}
	if copies == 0 || len(ids) != 1 {
		t.Errorf("%d copies with %d different ids", copies, len(ids))
	}
	p, err := sc.juliet.Ask("")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Messages) != 1 || !ids[p.Messages[0].ID] {
		t.Errorf("archived: %v, live ids %v", p.Messages, ids)
	}
}

// largeMessages: a page that no socket buffer holds arrives whole.
func largeMessages(t testing.TB, sc *scene) {
	const n, size = 50, 60_000
	for i := range n {
		send(t, sc.romeo, sc.juliet, fmt.Sprint(i, " ", strings.Repeat("thy lips, ", size/10)))
	}
	p, err := sc.juliet.Ask("max=50 before=")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Messages) == n && p.Complete() {
		return
	}
	// A server may cut a page short by bytes; then paging must still find all.
	all, err := sc.juliet.Walk("", 50)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != n {
		t.Errorf("%d messages archived, want %d", len(all), n)
	}
}

// forgedSender: nobody speaks or writes into an archive under another's address;
// the stream ends or the address is set right (RFC 6120, section 8.1.2.1).
func forgedSender(t testing.TB, sc *scene) {
	err := sc.romeo.Send("<message from='nurse@" + sc.host.Domain + "/kitchen' to='" + sc.juliet.JID + "' type='chat'><body>forged</body></message>" +
		"<iq type='get' id='after'><ping xmlns='urn:xmpp:ping'/></iq>")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := sc.romeo.Next(); err == nil && e.Name.Local != "iq" && e.Name.Local != "error" {
		t.Errorf("the answer to a forged address:\n%s", e)
	}
	reader, err := Dial(sc.ctx, sc.host.login("juliet-"+sc.suffix, "reader"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	archive, err := reader.Walk("", 50)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range archive {
		if from := m.Message.Attr("from"); bare(from) != sc.romeo.Bare {
			t.Errorf("archived under the forged address %s", from)
		}
	}
}

// retention: a message older than archive_expires_after is in no answer,
// long before any cleanup runs, and its id is unknown and not used again.
func retention(t testing.TB, sc *scene) {
	gone, n := StanzaID(send(t, sc.romeo, sc.juliet, "soon gone"), sc.juliet.Bare)
	if n != 1 {
		t.Fatalf("the live message carries %d ids, want 1", n)
	}
	deadline := time.Now().Add(patience)
	for {
		p, err := sc.juliet.Ask("")
		if err != nil {
			t.Fatal(err)
		}
		if p.Count() == 0 && len(p.Messages) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", p.Messages)
		}
		time.Sleep(50 * time.Millisecond) // until the next look
	}
	if m := call(t, sc.juliet, "get", "<metadata xmlns='"+nsMAM+"'/>").Child("metadata"); m == nil || len(m.Children) > 0 {
		t.Errorf("metadata of an archive whose messages have expired: %v", m)
	}
	for _, words := range []string{"after=" + gone, "before=" + gone, "ids=" + gone, "after-id=" + gone, "before-id=" + gone} {
		if _, err := sc.juliet.Ask(words); err == nil || !strings.Contains(err.Error(), "item-not-found") {
			t.Errorf("%s, which has expired: want item-not-found, got %v", words, err)
		}
	}
	id, _ := StanzaID(send(t, sc.romeo, sc.juliet, "new"), sc.juliet.Bare)
	if id == gone || id == "" {
		t.Errorf("the new message's id is %q, the expired one's was %q", id, gone)
	}
}
