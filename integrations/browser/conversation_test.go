package browser

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

// The conversation has three pages and a bit, of 25 each as page.html has it.
const messages = 90

// line is what one of the two says.
type line struct {
	byJuliet bool
	text     string
}

//go:embed testdata/balcony.txt
var balcony string

// conversation is that scene, numbered, and over again until it is long enough.
func conversation() []line {
	var scene []line
	for l := range strings.Lines(balcony) {
		who, text, _ := strings.Cut(strings.TrimSpace(l), ": ")
		scene = append(scene, line{byJuliet: who == "J", text: text})
	}
	lines := make([]line, messages)
	for i := range lines {
		lines[i] = scene[i%len(scene)]
		lines[i].text = fmt.Sprintf("%d. %s", i+1, lines[i].text)
	}
	return lines
}

// talk lets them talk, each at a phone, and returns the texts. Juliet is gone
// when Romeo says his last words.
func talk(t *testing.T, s *peers.Server) []string {
	t.Helper()
	if err := s.Register(t.Context(), "juliet", "romeo"); err != nil {
		t.Fatal(err)
	}
	h := conformance.Host{Domain: s.Host, Addr: s.C2SAddr}
	juliet, err := h.Dial(t.Context(), "juliet", "phone")
	if err != nil {
		t.Fatal(err)
	}
	defer juliet.Drop()
	romeo, err := h.Dial(t.Context(), "romeo", "phone")
	if err != nil {
		t.Fatal(err)
	}
	defer romeo.Drop()
	if _, err := juliet.Call("set", "<query xmlns='jabber:iq:roster'><item jid='"+romeo.Bare+"' name='Romeo'/></query>"); err != nil {
		t.Fatal(err)
	}
	untilAnswered(t, juliet)
	lines := conversation()
	last := len(lines) // of Romeo's words, the first that Juliet isn't there for
	for !lines[last-1].byJuliet {
		last--
	}
	var texts []string
	for i, l := range lines {
		if i == last {
			juliet.Close()
		}
		if i >= last {
			// What Prosody keeps for who is away it stamps with whole seconds,
			// and by those Converse.js puts it between the others.
			now := time.Now()
			time.Sleep(now.Truncate(time.Second).Add(time.Second).Sub(now))
		}
		from, to := romeo, juliet
		if l.byJuliet {
			from, to = juliet, romeo
		}
		err := from.Send(fmt.Sprintf("<message type='chat' id='line-%d' to='%s'><body>%s</body></message>", i+1, to.Bare, escaper.Replace(l.text)))
		if err != nil {
			t.Fatal(err)
		}
		if i < last {
			if _, err := to.Next(); err != nil {
				t.Fatalf("%q did not arrive: %v", l.text, err)
			}
			// Converse.js puts messages in order by their time, which has
			// milliseconds, and not by their place in the archive.
			time.Sleep(time.Millisecond)
		}
		texts = append(texts, l.text)
	}
	// Answered after everything before it was handled.
	if _, err := romeo.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err != nil {
		t.Fatal(err)
	}
	romeo.Close()
	return texts
}

// untilAnswered waits until the archive can be asked: a server may be there
// before it.
func untilAnswered(t *testing.T, c *conformance.Client) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // until the next look
		answer, err := c.Call("get", "<query xmlns='urn:xmpp:mam:2'/>")
		if err != nil {
			t.Fatal(err)
		}
		if answer.Attr("type") == "result" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the archive does not answer: %s", answer)
		}
	}
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;")
