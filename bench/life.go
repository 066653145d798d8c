package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/cockroachdb/pebble/v2"
	"mellium.im/xmpp/jid"

	"mamlog/disk"
	"mamlog/integrations/peers"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// The messages of many owners lie within lifeSpan, under a retention that cuts
// them into buckets of a day.
const (
	lifeDays      = 14
	lifeSpan      = lifeDays * 24 * time.Hour
	lifeRetention = lifeSpan + 24*time.Hour
)

// appendsUnderway is how many appends a second are made while others things go on.
const appendsUnderway = 500

// Life measures what operators meet: memory, starting after a crash, expiry, and
// what maintenance does to appends.
func (b *Bench) Life(ctx context.Context) (s Section, err error) {
	s = Section{ID: "life", Title: "Operation", Text: fmt.Sprintf(`A store of %s messages of %s owners, within two weeks, under a retention of 15 days, so in buckets of a
day. Memory is the most that the server's process had resident (VmHWM) while 500 users paged through their archives
and %d senders wrote as fast as they could. A start is from the execution of the program to the first page that a client has, after the server
was ended by SIGKILL while messages came in. Appends under way are %d a second in process, each timed from the moment at which it was to be made;
meanwhile a day of messages expires, both stores are compacted, and the rows of all that is left, a week at most, are built anew.`,
		grouped(int64(b.Large)), grouped(int64(b.Owners)), b.Pairs, appendsUnderway)}
	if err := b.build(ctx); err != nil {
		return s, err
	}
	dir, err := os.MkdirTemp(b.Dir, "mamlog-bench-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	data := filepath.Join(dir, "served", "data")
	b.say("fill the archives of %s owners with %s messages", grouped(int64(b.Owners)), grouped(int64(b.Large)))
	began := time.Now().UTC().Add(-lifeSpan).Truncate(24 * time.Hour)
	if err := b.fillOwners(data, began); err != nil {
		return s, err
	}
	spare := filepath.Join(dir, "spare")
	if err := os.CopyFS(spare, os.DirFS(data)); err != nil {
		return s, err
	}
	if err := b.serveOwners(ctx, filepath.Dir(data), &s); err != nil {
		return s, err
	}
	if err := b.appendsMeanwhile(ctx, data, began, &s); err != nil {
		return s, err
	}
	return s, b.expiry(ctx, spare, &s)
}

// fillOwners records Large messages, each of one owner after the other.
func (b *Bench) fillOwners(dir string, began time.Time) error {
	st, err := openStore(dir, host, lifeRetention, began.Add(-time.Second))
	if err != nil {
		return err
	}
	f := st.filler()
	rng := rand.New(rand.NewPCG(b.Seed, 7))
	share := zipf(contacts, contactZipf)
	step := lifeSpan / time.Duration(b.Large)
	for i := range b.Large {
		st.setClock(began.Add(time.Duration(i) * step))
		m := message{Index: i, Contact: fmt.Sprintf("contact%d@far.example", rankAt(share, rng.Float64())), Body: b.text.body(rng)}
		if err = f.recordIn(&m, fmt.Sprintf("u%d", i%b.Owners)); err != nil {
			break
		}
	}
	return errors.Join(err, f.wait(), st.close())
}

// recordIn appends a message that came in for user.
func (f *filler) recordIn(m *message, user string) error {
	x, err := incoming(m, user, f.store.host)
	if err != nil {
		return err
	}
	return f.record(x)
}

func incoming(m *message, user, host string) (x xep0313.Message, err error) {
	x.ToLocal = true
	if x.From, err = jid.Parse(m.Contact + "/phone"); err != nil {
		return x, err
	}
	if x.To, err = jid.New(user, host, ""); err != nil {
		return x, err
	}
	x.Stanza, err = stanza.Parse([]byte(m.xml(user, host, true)))
	return x, err
}

// serveOwners starts the server on the store, uses it, and kills it some times.
func (b *Bench) serveOwners(ctx context.Context, dir string, s *Section) (err error) {
	b.say("memory")
	server, err := peers.StartMamlog(ctx, peers.MamlogOptions{Binary: b.binary, Dir: dir, Host: host, ExpiresAfter: "15d"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	sys := &system{contender: embedded, server: server}
	users := make([]string, min(500, b.Owners))
	for i := range users {
		users[i] = fmt.Sprintf("u%d", i)
	}
	if err := server.Register(ctx, users...); err != nil {
		return err
	}
	l, err := newLoad(ctx, b.text, sys, loadOptions{pairs: b.Pairs, spread: 1, name: "m", seed: b.Seed})
	if err != nil {
		return err
	}
	var reading sync.WaitGroup
	var readErr error
	reading.Go(func() {
		for _, u := range users {
			if readErr = readOnce(ctx, server, u); readErr != nil {
				return
			}
		}
	})
	_, err = l.throughput(ctx, b.Pairs, b.Window, 0, 2*b.Time)
	reading.Wait()
	err = errors.Join(err, readErr)
	l.close()
	if err != nil {
		return err
	}
	resident, err := peakMemory(server.Groups()[0])
	if err != nil {
		return err
	}
	s.Goals = append(s.Goals, Goal{Name: fmt.Sprintf("resident memory, %s messages of %s users", grouped(int64(b.Large)), grouped(int64(b.Owners))),
		Unit: "MB", Rounds: []float64{float64(resident) / 1e6}, Want: 400, AtMost: true})
	b.say("starts after kill -9, %d rounds", b.Rounds)
	var starts []float64
	for r := range b.Rounds {
		l, err := newLoad(ctx, b.text, sys, loadOptions{pairs: b.Pairs, spread: 1, name: fmt.Sprintf("k%d", r), seed: b.Seed})
		if err != nil {
			return err
		}
		killed := make(chan error)
		go func() {
			time.Sleep(b.Time / 2)
			killed <- server.Kill()
		}()
		_, _ = l.throughput(ctx, b.Pairs, b.Window, 0, time.Hour) // until the server is gone
		err = <-killed
		l.close()
		if err != nil {
			return err
		}
		started := time.Now()
		if err := errors.Join(server.Start(ctx), readOnce(ctx, server, users[0])); err != nil {
			return err
		}
		starts = append(starts, time.Since(started).Seconds())
	}
	s.Goals = append(s.Goals, Goal{Name: fmt.Sprintf("start to first answer after kill -9, %s messages", grouped(int64(b.Large))),
		Unit: "s", Rounds: starts, Want: 3, AtMost: true})
	return nil
}

// readOnce logs in, and reads the newest page, which must have messages.
func readOnce(ctx context.Context, server *peers.Server, user string) error {
	c, err := dial(ctx, server, user, "r")
	if err != nil {
		return err
	}
	defer c.Close()
	n := 0
	_, err = c.ask("set", "", "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>50</max><before/></set></query>",
		func([]byte) error { n++; return nil })
	if err == nil && n == 0 {
		err = fmt.Errorf("the archive of %s is empty", user)
	}
	return err
}

// peakMemory is the most that a process had resident, in bytes.
func peakMemory(pid int) (int64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, errors.New("the kernel does not tell the memory of a process")
}

// appendsMeanwhile compares the latency of appends at rest and during
// maintenance.
func (b *Bench) appendsMeanwhile(ctx context.Context, dir string, began time.Time, s *Section) (err error) {
	st, err := openStore(dir, host, lifeRetention, time.Time{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	class, err := st.class()
	if err != nil {
		return err
	}
	if err := st.rest(ctx); err != nil {
		return err
	}
	rounds := min(b.Rounds, lifeDays-2)
	b.say("appends at rest and during maintenance, %d rounds", rounds)
	// A day for each round, and two that stay: to build more anew takes minutes.
	day := lifeDays - 2 - rounds
	first := st.rows.ExpiryCut(class, began.AddDate(0, 0, day))
	if _, err := st.log.Expire(ctx, class, first, ""); err != nil {
		return err
	}
	if err := errors.Join(st.log.Compact(ctx, class, first), st.rows.Compact(ctx, class, first)); err != nil {
		return err
	}
	seed := b.Seed
	p99 := func(done <-chan struct{}, all *hdrhistogram.Histogram) (float64, error) {
		seed++
		h, err := b.timeAppends(st, done, seed)
		if err != nil {
			return 0, err
		}
		all.Merge(h)
		return milliseconds(h, 99), nil
	}
	calm, busy := newHistogram(), newHistogram()
	figures, err := inTurns(rounds, []func() (float64, error){
		func() (float64, error) {
			// What the round before has deleted gives its space back for long.
			if err := errors.Join(st.rest(ctx), disk.Reclaimed(ctx)); err != nil {
				return 0, err
			}
			done := make(chan struct{})
			time.AfterFunc(2*b.Time, func() { close(done) })
			return p99(done, calm)
		},
		func() (float64, error) {
			day++
			cut := st.rows.ExpiryCut(class, began.AddDate(0, 0, day))
			done := make(chan struct{})
			var failed error
			go func() {
				defer close(done)
				expired, err := st.log.Expire(ctx, class, cut, "")
				if err == nil && !expired {
					err = errors.New("there was nothing to expire")
				}
				failed = errors.Join(err, st.log.Compact(ctx, class, cut), st.rows.Compact(ctx, class, cut), st.rows.Rebuild(nil))
			}()
			v, err := p99(done, busy)
			<-done
			return v, errors.Join(err, failed)
		},
	})
	if err != nil {
		return err
	}
	s.Goals = append(s.Goals, ratio("p99 of appends during expiry, compaction and rebuild ÷ at rest", figures[1], figures[0], "itself at rest", 3, true))
	t := Table{Title: "Appends, ms", Header: []string{"", "p50", "p99", "p99.9", "max", "appends"}}
	for i, h := range []*hdrhistogram.Histogram{calm, busy} {
		t.Rows = append(t.Rows, []string{[]string{"at rest", "during maintenance"}[i], number(milliseconds(h, 50)), number(milliseconds(h, 99)),
			number(milliseconds(h, 99.9)), number(float64(h.Max()) / 1000), grouped(h.TotalCount())})
	}
	s.Tables = append(s.Tables, t)
	return nil
}

// timeAppends makes appends at moments of their own until done, at least some,
// and returns how long after its moment each was durable.
func (b *Bench) timeAppends(st *store, done <-chan struct{}, seed uint64) (*hdrhistogram.Histogram, error) {
	tr, err := newTraffic(b.text, seed, 1024, 1000)
	if err != nil {
		return nil, err
	}
	clock, err := newAlarm()
	if err != nil {
		return nil, err
	}
	defer clock.close()
	rng := rand.New(rand.NewPCG(seed, 8))
	h := newHistogram()
	var mu sync.Mutex // over h and failed
	var failed error
	var underway sync.WaitGroup
	at := monotonic()
	for n := 0; ; n++ {
		select {
		case <-done:
			if n >= 100 {
				underway.Wait()
				return h, failed
			}
		default:
		}
		at += int64(rng.ExpFloat64() / appendsUnderway * 1e9)
		if err := clock.wait(at); err != nil {
			return nil, err
		}
		due := at
		underway.Add(1)
		err := st.archive.Record(tr.messages[n%len(tr.messages)], func(d xep0313.Delivery) {
			late := max((monotonic()-due)/1000, 1)
			mu.Lock()
			failed = errors.Join(failed, d.Err, h.RecordValue(late))
			mu.Unlock()
			underway.Done()
		})
		if err != nil {
			return nil, err
		}
	}
}

// expiry lets all messages of the store expire at once.
func (b *Bench) expiry(ctx context.Context, dir string, s *Section) (err error) {
	b.say("expire %s messages", grouped(int64(b.Large)))
	stores := filepath.Join(dir, "stores")
	before, err := treeBytes(stores)
	if err != nil {
		return err
	}
	st, err := openStore(dir, host, lifeRetention, time.Now().Add(2*lifeRetention))
	if err != nil {
		return err
	}
	class, err := st.class()
	if err == nil {
		err = st.rest(ctx)
	}
	if err != nil {
		return errors.Join(err, st.close())
	}
	cut := st.rows.ExpiryCut(class, st.log.Clock().Now().Add(-lifeRetention))
	started := time.Now()
	expired, err := st.log.Expire(ctx, class, cut, "")
	foreground := time.Since(started)
	if err == nil && !expired {
		err = errors.New("there was nothing to expire")
	}
	if err = errors.Join(err, st.close()); err != nil {
		return err
	}
	tombstones, err := rangeTombstones(ctx, stores)
	if err != nil {
		return err
	}
	if st, err = openStore(dir, host, lifeRetention, time.Now().Add(2*lifeRetention)); err != nil {
		return err
	}
	started = time.Now()
	err = errors.Join(st.log.Compact(ctx, class, cut), st.rows.Compact(ctx, class, cut))
	compaction := time.Since(started)
	if err = errors.Join(err, st.close()); err != nil {
		return err
	}
	// Tables that are not used any more are deleted in the background, at the latest
	// when a store is opened.
	if st, err = openStore(dir, host, lifeRetention, time.Now().Add(2*lifeRetention)); err != nil {
		return err
	}
	if err := st.close(); err != nil {
		return err
	}
	after, err := treeBytes(stores)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("expiring %s messages of %s users", grouped(int64(b.Large)), grouped(int64(b.Owners)))
	s.Goals = append(s.Goals,
		Goal{Name: what + ": range tombstones", Unit: "tombstones", Rounds: []float64{float64(tombstones)}, Want: 20, AtMost: true},
		Goal{Name: what + ": in the foreground", Unit: "ms", Rounds: []float64{float64(foreground.Microseconds()) / 1000}, Want: 100, AtMost: true},
		Goal{Name: what + ": disk given back", Unit: "%", Rounds: []float64{100 * (1 - float64(after)/float64(before))}, Want: 95})
	s.Tables = append(s.Tables, Table{Title: "Expiry", Header: []string{"", ""}, Rows: [][]string{
		{"bytes before", grouped(before)}, {"bytes after", grouped(after)},
		{"compaction, in the background", compaction.Round(time.Millisecond).String()},
	}})
	return nil
}

// rangeTombstones counts those in the engine's stores below a directory, none of
// which is open.
func rangeTombstones(ctx context.Context, dir string) (n int, err error) {
	var stores []string
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "MANIFEST-") && !slices.Contains(stores, filepath.Dir(path)) {
			stores = append(stores, filepath.Dir(path))
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, path := range stores {
		db, err := pebble.Open(path, &pebble.Options{ReadOnly: true, Logger: silent{}})
		if err != nil {
			return 0, err
		}
		err = db.ScanInternal(ctx, 0, []byte{0}, []byte{0xff, 0xff, 0xff, 0xff},
			func(*pebble.InternalKey, pebble.LazyValue, pebble.IteratorLevel) error { return nil },
			func([]byte, []byte, pebble.SeqNum) error { n++; return nil },
			nil, nil, nil)
		if err = errors.Join(err, db.Close()); err != nil {
			return 0, err
		}
	}
	return n, nil
}
