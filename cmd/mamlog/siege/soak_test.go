package siege

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"mamlog/cmd/mamlog/conformance"
)

// soak is a load of many clients.
type soak struct {
	t    *testing.T
	s    *server
	n    int           // clients
	each time.Duration // pause of one between two things that it does

	ops, logins atomic.Int64
	mu          sync.Mutex // guards the histograms
	seconds     map[string]*hdrhistogram.Histogram
}

// TestSoak lets many clients write, page, change preferences, leave and come back.
// Nothing fails, and from the time when all have warmed up the process holds as many
// goroutines and as much memory as at the end.
//
// MAMLOG_SOAK_MINUTES says how long, of 2,000 clients; otherwise an hour in the long
// form, and in the short one ten seconds of 100.
func TestSoak(t *testing.T) {
	k := &soak{t: t, n: 100, each: 400 * time.Millisecond, seconds: make(map[string]*hdrhistogram.Histogram)}
	length := 10 * time.Second
	if conformance.Nightly() {
		length = time.Hour
	}
	if m := os.Getenv("MAMLOG_SOAK_MINUTES"); m != "" {
		minutes, err := strconv.ParseFloat(m, 64)
		if err != nil {
			t.Fatal(err)
		}
		length = time.Duration(minutes * float64(time.Minute))
	}
	if length > time.Minute {
		k.n, k.each = 2000, 8*time.Second
	}
	t.Setenv("GOGC", "50")
	k.s = serve(t, "cache_size: 32MiB\nlimits: {connections_logging_in: 100, login_timeout: 300}\n")
	users := make([]string, max(10, k.n/20))
	for i := range users {
		users[i] = fmt.Sprint("user", i)
	}
	k.s.users(users...)
	for _, op := range []string{"append", "page", "preferences", "login"} {
		k.seconds[op] = hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
	}
	rng := seeded(t)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg, ready sync.WaitGroup
	gate := make(chan struct{}, 20) // so many log in at once
	for i := range k.n {
		ready.Add(1)
		r := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
		wg.Go(func() { k.client(ctx, r, users, users[i%len(users)], fmt.Sprint("r", i), gate, ready.Done) })
	}
	ready.Wait()
	if t.Failed() {
		return
	}
	// Quarters: in the first it warms up.
	const looks = 40
	var uses []use
	started := time.Now()
	for i := range looks {
		time.Sleep(time.Until(started.Add(length * time.Duration(i+1) / looks)))
		m := k.s.metrics()
		uses = append(uses, use{int(m["go_goroutines"]), int(m["go_memstats_heap_alloc_bytes"]), int(m["process_resident_memory_bytes"])})
	}
	stop()
	wg.Wait()
	early, late := lowest(uses[looks/4:looks/2]), lowest(uses[looks*3/4:])
	for _, u := range uses[looks/4 : looks/2] { // not the least: clients that wait to log in have none
		early.goroutines = max(early.goroutines, u.goroutines)
	}
	if late.goroutines > early.goroutines*11/10+20 {
		t.Errorf("%d goroutines, before %d", late.goroutines, early.goroutines)
	}
	if late.heap > early.heap*13/10+16<<20 {
		t.Errorf("%d MiB of heap, before %d", late.heap>>20, early.heap>>20)
	}
	if late.resident > early.resident*13/10+64<<20 {
		t.Errorf("%d MiB resident, before %d", late.resident>>20, early.resident>>20)
	}
	var p99 []string
	for op, h := range k.seconds {
		p99 = append(p99, fmt.Sprintf("%s %.1f ms of %d", op, float64(h.ValueAtQuantile(99))/1000, h.TotalCount()))
	}
	slices.Sort(p99)
	conformance.Figures(t, "%v of %d connections, %d things done, %d logins, no error; p99 %s; goroutines %d, before %d; heap %d MiB, before %d; resident %d MiB, before %d",
		length, k.n, k.ops.Load(), k.logins.Load(), strings.Join(p99, ", "), late.goroutines, early.goroutines, late.heap>>20, early.heap>>20, late.resident>>20, early.resident>>20)
}

func lowest(uses []use) use {
	least := uses[0]
	for _, u := range uses {
		least = use{min(least.goroutines, u.goroutines), min(least.heap, u.heap), min(least.resident, u.resident)}
	}
	return least
}

// client does one thing after another until ctx ends. ready is called when it is
// logged in for the first time, or can't be.
func (k *soak) client(ctx context.Context, r *rand.Rand, users []string, user, resource string, gate chan struct{}, ready func()) {
	var c *conformance.Client
	defer func() {
		if c != nil {
			c.Drop()
		}
		if ready != nil {
			ready()
		}
	}()
	for {
		if c == nil {
			gate <- struct{}{}
			started := time.Now()
			var err error
			c, err = conformance.Dial(context.WithoutCancel(ctx), conformance.DialOptions{
				Addr: k.s.Addr, Domain: conformance.Domain, User: user, Password: conformance.Password, Resource: resource,
			})
			<-gate
			if err != nil {
				k.t.Errorf("%s logs in: %v", resource, err)
				return
			}
			k.took("login", started)
			k.logins.Add(1)
			if r.IntN(10) == 0 { // the others are there, and get nothing but what is for their resource
				if err := c.Send("<presence><priority>" + fmt.Sprint(r.IntN(100)) + "</priority></presence>"); err != nil {
					k.t.Errorf("%s: %v", resource, err)
					return
				}
			}
			if ready != nil {
				ready()
				ready = nil
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(r.Int64N(int64(2 * k.each)))):
		}
		gone, err := k.do(c, r, users)
		if err != nil {
			k.t.Errorf("%s: %v", c.JID, err)
			return
		}
		k.ops.Add(1)
		if gone {
			c = nil
		}
	}
}

// do does something, and tells whether that was to leave.
func (k *soak) do(c *conformance.Client, r *rand.Rand, users []string) (gone bool, err error) {
	id := fmt.Sprint("i", r.Uint64())
	started := time.Now()
	switch n := r.IntN(100); {
	case n < 30: // to somebody else, which nobody answers: the ping behind it is answered at once
		err = c.Send("<message to='" + users[r.IntN(len(users))] + "@test.example' type='chat'><body>" + strings.Repeat("word ", 1+r.IntN(100)) +
			"</body></message><iq type='get' id='" + id + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		if err == nil {
			err = until(c, id, "result")
		}
	case n < 60: // to oneself, which comes back when it is archived
		if err = c.Send("<message to='" + c.JID + "' type='chat' id='" + id + "'><body>" + strings.Repeat("word ", 1+r.IntN(100)) + "</body></message>"); err == nil {
			err = until(c, id, "chat")
			k.took("append", started)
		}
	case n < 85:
		page := "<before/>"
		if r.IntN(2) == 0 {
			page = "<index>" + fmt.Sprint(r.IntN(20)) + "</index>"
		}
		if err = c.Send("<iq type='set' id='" + id + "'><query xmlns='" + nsMAM + "'><set xmlns='http://jabber.org/protocol/rsm'><max>" + fmt.Sprint(1+r.IntN(50)) + "</max>" + page + "</set></query></iq>"); err == nil {
			err = until(c, id, "result")
			k.took("page", started)
		}
	case n < 90:
		if err = c.Send("<iq type='get' id='" + id + "'><metadata xmlns='" + nsMAM + "'/></iq>"); err == nil {
			err = until(c, id, "result")
		}
	case n < 95:
		if err = c.Send("<iq type='set' id='" + id + "'><prefs xmlns='" + nsMAM + "' default='always'><never><jid>n" + fmt.Sprint(r.IntN(100)) + "@elsewhere.example</jid></never></prefs></iq>"); err == nil {
			err = until(c, id, "result")
			k.took("preferences", started)
		}
	case n < 98:
		c.Close()
		return true, nil
	default:
		c.Drop()
		return true, nil
	}
	return false, err
}

// until reads up to the stanza with that id, which must be of that type. Errors are
// never due.
func until(c *conformance.Client, id, typ string) error {
	for {
		e, err := c.Next()
		if err != nil {
			return err
		}
		if e.Attr("type") == "error" {
			return fmt.Errorf("an error: %s", e)
		}
		if e.Attr("id") == id {
			if e.Attr("type") != typ {
				return fmt.Errorf("want a %s, got %s", typ, e)
			}
			return nil
		}
	}
}

func (k *soak) took(op string, since time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.seconds[op].RecordValue(max(1, time.Since(since).Microseconds())); err != nil {
		k.t.Error(err)
	}
}
