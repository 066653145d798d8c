package siege

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
)

// TestOverload gives the server more to archive than its disk takes, from clients
// and over a link. All of it is either acknowledged, and then it is in the archives
// once, in order, or refused with resource-constraint, type wait, and then it is in
// none; and afterwards the server takes messages as ever.
func TestOverload(t *testing.T) {
	const limits = "limits: {append_queue: 64KiB}\n"
	const size = 20000 // two of them are too much at once
	filler := strings.Repeat("x", size)
	t.Run("clients", func(t *testing.T) {
		senders, each := 16, 30
		if conformance.Nightly() {
			each = 300
		}
		s := serve(t, limits)
		s.users("juliet", "romeo")
		juliet := s.dial("juliet", "balcony")
		got := make(map[string]string) // id by body, without its filler
		var order []string
		var refused sync.Map
		var sending, answered sync.WaitGroup
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				e, err := juliet.Next()
				if err != nil {
					t.Errorf("juliet: %v", err)
					return
				}
				body, _, _ := strings.Cut(e.Child("body").Content(), " ")
				if body == "end" {
					return
				}
				id, n := conformance.StanzaID(e, juliet.Bare)
				if _, twice := got[body]; n != 1 || twice {
					t.Errorf("%s came with %d ids, or twice", body, n)
				}
				got[body], order = id, append(order, id)
			}
		}()
		for i := range senders {
			romeo := s.dial("romeo", fmt.Sprint("r", i))
			sending.Go(func() {
				answered.Go(func() { // when it ends, each is answered or was delivered
					for {
						e, err := romeo.Next()
						if err != nil {
							t.Errorf("romeo: %v", err)
							return
						}
						if e.Name.Local == "iq" {
							return
						}
						if e.Attr("type") != "error" {
							continue
						}
						if c := condition(e); c != "wait/resource-constraint" {
							t.Errorf("%s: %s", e.Attr("id"), c)
						}
						refused.Store(e.Attr("id"), true)
					}
				})
				for n := range each {
					body := fmt.Sprintf("%d-%d", i, n)
					if err := romeo.Send("<message to='juliet@test.example' type='chat' id='" + body + "'><body>" + body + " " + filler + "</body></message>"); err != nil {
						t.Error(err)
					}
				}
				if err := romeo.Send("<iq type='get' id='behind'><ping xmlns='urn:xmpp:ping'/></iq>"); err != nil {
					t.Error(err)
				}
			})
		}
		sending.Wait()
		answered.Wait() // or the end might overtake what is still read
		last := s.dial("romeo", "last")
		for { // until it takes messages again
			if err := last.Send("<message to='juliet@test.example' type='chat' id='end'><body>end</body></message>"); err != nil {
				t.Fatal(err)
			}
			if e, err := last.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err == nil {
				break
			} else if e != nil {
				t.Fatal(err)
			}
			last.Next() // the ping's answer; the error came first
			time.Sleep(10 * time.Millisecond)
		}
		<-done
		n := 0
		for i := range senders {
			for m := range each {
				body := fmt.Sprintf("%d-%d", i, m)
				_, delivered := got[body]
				_, shed := refused.Load(body)
				if delivered == shed {
					t.Errorf("%s: delivered %v, refused %v", body, delivered, shed)
				}
				if shed {
					n++
				}
			}
		}
		if n == 0 || len(got) == 0 {
			t.Errorf("%d were taken and %d refused: that was no overload", len(got), n)
		}
		for _, user := range []string{"juliet", "romeo"} {
			reader := s.dial(user, "reader")
			archive, err := reader.Walk("", 50)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			seen := make(map[string]bool)
			for _, m := range archive {
				body, _, _ := strings.Cut(m.Body(), " ")
				if body == "end" {
					continue
				}
				if seen[body] {
					t.Errorf("%s has %s twice", user, body)
				}
				seen[body] = true
				ids = append(ids, m.ID)
				if _, ok := got[body]; !ok {
					t.Errorf("%s has %s, which was refused", user, body)
				}
			}
			if len(ids) != len(got) {
				t.Errorf("%s has %d messages of %d", user, len(ids), len(got))
			}
			if user == "juliet" && strings.Join(ids, " ") != strings.Join(order, " ") {
				t.Error("juliet's archive has them in another order than they came")
			}
		}
		conformance.Figures(t, "%d messages: %d acknowledged and archived, %d refused with resource-constraint", senders*each, len(got), n)
	})
	t.Run("a link", func(t *testing.T) {
		r := newRealm(t, limits)
		batches := 300
		if conformance.Nightly() {
			batches = 3000
		}
		acknowledged := make(map[string]int) // batch by id
		refused := 0
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range batches {
				e, err := r.linked.Next()
				if err != nil {
					t.Errorf("answer %d: %v", i, err)
					return
				}
				if e.Attr("id") != fmt.Sprint("b", i) {
					t.Errorf("answer %d is one to %s", i, e.Attr("id"))
				}
				switch word := e.Child("archived").Content(); {
				case word == "!resource-constraint":
					refused++
				case len(word) == 26:
					acknowledged[word] = i
				default:
					t.Errorf("answer %d: %s", i, e)
				}
			}
		})
		for i := range batches {
			batch := appendOf("in", "erin@linked.example", fmt.Sprint(i), "contact='true'")
			batch = strings.Replace(batch, "</body>", " "+filler+"</body>", 1)
			if err := r.linked.Send("<iq type='set' id='b" + fmt.Sprint(i) + "' from='linked.example' to='" + r.linked.JID + "'>" + batch + "</iq>"); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if refused == 0 || len(acknowledged) == 0 {
			t.Errorf("%d were taken and %d refused: that was no overload", len(acknowledged), refused)
		}
		found, after := 0, ""
		for {
			page := r.request(r.linked, "linked.example", "get", asked("erin@linked.example", "erin@linked.example/x", "set",
				"<query xmlns='"+nsMAM+"'><set xmlns='http://jabber.org/protocol/rsm'><max>10</max><after>"+after+"</after></set></query>")).Child("page")
			all, err := conformance.ParseElement("<all>" + page.Content() + "</all>")
			if err != nil {
				t.Fatal(err)
			}
			fin := all.Children[len(all.Children)-1].Child("fin")
			for _, m := range all.Children[:len(all.Children)-1] {
				result := m.Child("result")
				after = result.Attr("id")
				body, _, _ := strings.Cut(result.Child("forwarded", "message", "body").Content(), " ")
				if i, ok := acknowledged[after]; !ok || fmt.Sprint(i) != body {
					t.Errorf("%s is batch %s in the archive, and %d was acknowledged so (%v)", after, body, i, ok)
				}
				found++
			}
			if fin == nil || fin.Attr("complete") == "true" || len(all.Children) == 1 {
				break
			}
		}
		if found != len(acknowledged) {
			t.Errorf("%d are in the archive, %d were acknowledged", found, len(acknowledged))
		}
		conformance.Figures(t, "%d batches: %d acknowledged and archived, %d refused with resource-constraint", batches, len(acknowledged), refused)
	})
}

// TestSlowReaders: who reads nothing is cut off when its queue is full, costs no more
// memory than that, and delays nobody.
func TestSlowReaders(t *testing.T) {
	const slow = 10
	t.Setenv("GOGC", "20")
	s := serve(t, "limits: {client_queue: 1MiB, stanza_size: 20000}\ncache_size: 8MiB\n")
	s.users("mallory", "juliet", "romeo")
	talk := converse(t, s)
	before := s.settled(0)
	for range slow {
		p, err := s.tcp("mallory")
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if err := p.send("<presence/>"); err != nil {
			t.Fatal(err)
		}
	}
	romeo := s.dial("romeo", "flood")
	const cutOff = `mamlog_c2s_stream_errors_total{condition="resource-constraint"}`
	headline := "<message to='mallory@test.example' type='headline'><body>" + strings.Repeat("x", 15000) + "</body></message>"
	flood, most := 0, 0
	for end := time.Now().Add(patience); ; flood += 100 {
		m := s.metrics()
		most = max(most, int(m["go_memstats_heap_alloc_bytes"]))
		if m[cutOff] == slow {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v of %d were cut off, after %d messages", m[cutOff], slow, flood)
		}
		if err := romeo.Send(strings.Repeat(headline, 100)); err != nil {
			t.Fatal(err)
		}
		if _, err := romeo.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err != nil {
			t.Fatal(err)
		}
	}
	talk.end()
	if limit := before.heap + slow<<20 + 24<<20; most > limit {
		t.Errorf("%d MiB of heap, before %d", most>>20, before.heap>>20)
	}
	conformance.Figures(t, "%d clients that read nothing were cut off after %d MiB for each; heap at most %d MiB, before %d; %d messages of a conversation meanwhile",
		slow, flood*len(headline)>>20, most>>20, before.heap>>20, talk.n)
}
