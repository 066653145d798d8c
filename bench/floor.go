package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"mellium.im/xmpp/jid"

	"mamlog/projections"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// floor is the bare engine: no durable archive on it can be faster.
type floor struct {
	db  *pebble.DB
	seq atomic.Uint64
}

func openFloor(dir string) (*floor, error) {
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	o := &pebble.Options{Cache: cache, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 32 << 20, Logger: silent{}}
	for i := range o.Levels {
		o.Levels[i].BlockSize = 16 << 10
	}
	db, err := pebble.Open(dir, o)
	return &floor{db: db}, err
}

type silent struct{}

func (silent) Infof(string, ...any)             {}
func (silent) Errorf(format string, a ...any)   { fmt.Fprintf(os.Stderr, format+"\n", a...) }
func (s silent) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// append writes one value durably; commits at the same moment share an fsync.
func (f *floor) append(value []byte) error {
	return f.db.Set(binary.BigEndian.AppendUint64(nil, f.seq.Add(1)), value, pebble.Sync)
}

// fill writes the stanzas of an archive as rows.
func (f *floor) fill(ctx context.Context, c *contents) error {
	b := f.db.NewBatch()
	for m := range c.all() {
		if err := b.Set(binary.BigEndian.AppendUint64(nil, f.seq.Add(1)), []byte(m.xml(c.User, host, true)), nil); err != nil {
			return err
		}
		if b.Len() > 4<<20 {
			if err := b.Commit(pebble.NoSync); err != nil {
				return err
			}
			b = f.db.NewBatch()
		}
	}
	if err := errors.Join(b.Commit(pebble.Sync), f.db.Flush()); err != nil {
		return err
	}
	for f.db.Metrics().Compact.NumInProgress > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond): // until the next look
		}
	}
	return nil
}

// page reads the rows before a place, backwards, and copies them.
func (f *floor) page(before uint64, buf []byte) ([]byte, error) {
	it, err := f.db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	n := 0
	for ok := it.SeekLT(binary.BigEndian.AppendUint64(nil, before)); ok && n < pageSize; ok = it.Prev() {
		buf = append(buf, it.Value()...)
		n++
	}
	if err := it.Close(); err != nil {
		return nil, err
	}
	if n != pageSize {
		return nil, fmt.Errorf("a scan of the floor has %d rows, want %d", n, pageSize)
	}
	return buf, nil
}

// appenders is how many append at once, each waiting for its own to be durable.
const appenders = 64

// appendRate lets them append for so long.
func appendRate(d time.Duration, one func(worker, n int) error) (float64, error) {
	var wg sync.WaitGroup
	var done atomic.Int64
	errs := make([]error, appenders)
	started := time.Now()
	for w := range appenders {
		wg.Go(func() {
			for n := 0; time.Since(started) < d; n++ {
				if errs[w] = one(w, n); errs[w] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(started).Seconds(), errors.Join(errs...)
}

// traffic are messages between accounts of one host, made beforehand.
type traffic struct {
	messages []xep0313.Message
	bytes    [][]byte
}

// newTraffic has n messages between users, each of whom writes as people do.
func newTraffic(t *text, seed uint64, n, users int) (*traffic, error) {
	rng := rand.New(rand.NewPCG(seed, 5))
	share := zipf(min(contacts, users-1), contactZipf)
	tr := new(traffic)
	for i := range n {
		a := rng.IntN(users)
		b := (a + 1 + rankAt(share, rng.Float64())) % users
		from, to := fmt.Sprintf("u%d@%s/desk", a, host), fmt.Sprintf("u%d@%s", b, host)
		var sb strings.Builder
		id := stanzaID(uint64(i))
		fmt.Fprintf(&sb, "<message xml:lang='en' to='%s' from='%s' type='chat' id='%s' xmlns='jabber:client'>", to, from, id)
		payload(&sb, id, t.body(rng))
		sb.WriteString("</message>")
		st, err := stanza.Parse([]byte(sb.String()))
		if err != nil {
			return nil, err
		}
		m := xep0313.Message{Stanza: st, FromLocal: true, ToLocal: true}
		if m.From, err = jid.Parse(from); err != nil {
			return nil, err
		}
		if m.To, err = jid.Parse(to); err != nil {
			return nil, err
		}
		tr.messages = append(tr.messages, m)
		tr.bytes = append(tr.bytes, []byte(sb.String()))
	}
	return tr, nil
}

// record appends m to the archives of both sides and waits until it is durable;
// whoever queries then sees it.
func (s *store) record(m xep0313.Message) error { return record(s.archive, m) }

func record(a *xep0313.Archive, m xep0313.Message) error {
	done := make(chan error, 1)
	if err := a.Record(m, func(d xep0313.Delivery) { done <- d.Err }); err != nil {
		return err
	}
	return <-done
}

// reader asks a store for pages, without a server.
type reader struct {
	store *store
	asker jid.JID
	query *stanza.Element
	want  int // stanzas of the answer
}

// newReader prepares a request. check, if not nil, is given the answer once.
func (s *store) newReader(user, with, set string, want int, check func([][]byte) error) (*reader, error) {
	asker, err := jid.New(user, s.host, "desk")
	if err != nil {
		return nil, err
	}
	fields := ""
	if with != "" {
		fields = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>" + field("with", with) + "</x>"
	}
	q, err := stanza.Parse([]byte("<iq type='set' id='1' from='" + asker.String() + "' xmlns='jabber:client'><query xmlns='urn:xmpp:mam:2' queryid='q'>" + fields +
		"<set xmlns='http://jabber.org/protocol/rsm'>" + set + "</set></query></iq>"))
	if err != nil {
		return nil, err
	}
	r := &reader{s, asker, q, want}
	var answer [][]byte
	n, _ := r.ask(func(b []byte) { answer = append(answer, append([]byte(nil), b...)) })
	if n != want {
		return nil, fmt.Errorf("the answer to %s has %d stanzas, want %d", set, n, want)
	}
	if check != nil {
		err = check(answer)
	}
	return r, err
}

// ask returns how many stanzas and bytes the answer has.
func (r *reader) ask(each func([]byte)) (stanzas, bytes int) {
	r.store.archive.HandleIQ(context.Background(), r.query, r.asker, func(b []byte) {
		stanzas++
		bytes += len(b)
		if each != nil {
			each(b)
		}
	})
	return stanzas, bytes
}

// checkPage compares the bodies of an answer with the archive's.
func checkPage(c *contents, want sequence) func([][]byte) error {
	return func(answer [][]byte) error {
		p := &pager{contents: c}
		for i := range want.n {
			if err := p.check(answer[i], want.at(i)); err != nil {
				return err
			}
		}
		return nil
	}
}

// rateOf calls do, one call after the other, for so long.
func rateOf(d time.Duration, do func(n int) error) (float64, error) {
	started := time.Now()
	n := 0
	for ; time.Since(started) < d || n == 0; n++ {
		if err := do(n); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(started).Seconds(), nil
}

func readRate(d time.Duration, readers ...*reader) func() (float64, error) {
	return func() (float64, error) {
		return rateOf(d, func(n int) error {
			r := readers[n%len(readers)]
			if got, _ := r.ask(nil); got != r.want {
				return fmt.Errorf("an answer has %d stanzas, want %d", got, r.want)
			}
			return nil
		})
	}
}

// Floor compares mamlog without a network with the bare engine on the same disk,
// and a large archive with a small one.
func (b *Bench) Floor(ctx context.Context) (s Section, err error) {
	s = Section{ID: "floor", Title: "Against the bare engine", Text: fmt.Sprintf(`In one process, without a network. The floor is Pebble %s with the same bytes on the same
disk: for appends, %d goroutines that each write one stanza and wait for its fsync (group commit); for
pages, a scan of the %d rows, copied. An append of mamlog is durable in the log for both archives, and every query
after it sees it, or, in one figure, in the log alone; a page is the answer to a request, from its element to the last byte, with count and index.
The archive has %s messages, the small one %s.`,
		versions()["Pebble"], appenders, pageSize, grouped(int64(b.Large)), grouped(int64(b.Small)))}
	dir, err := os.MkdirTemp(b.Dir, "mamlog-bench-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := b.floorAppends(dir, &s); err != nil {
		return s, err
	}
	return s, b.floorPages(ctx, dir, &s)
}

func (b *Bench) floorAppends(dir string, s *Section) (err error) {
	b.say("appends, %d rounds", b.Rounds)
	ours, err := openStore(filepath.Join(dir, "appends"), host, 0, time.Time{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.close()) }()
	bare, err := openFloor(filepath.Join(dir, "appends-floor"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.db.Close()) }()
	rowless, err := ours.withoutRows(filepath.Join(dir, "appends-log"))
	if err != nil {
		return err
	}
	tr, err := newTraffic(b.text, b.Seed, 8192, 1000)
	if err != nil {
		return err
	}
	at := func(w, n int) int { return (w*131 + n) % len(tr.messages) }
	figures, err := inTurns(b.Rounds, []func() (float64, error){
		func() (float64, error) {
			return appendRate(b.Time, func(w, n int) error { return ours.record(tr.messages[at(w, n)]) })
		},
		func() (float64, error) {
			return appendRate(b.Time, func(w, n int) error {
				m := tr.messages[at(w, n)]
				var err error
				if m.Stanza, err = stanza.Parse(tr.bytes[at(w, n)]); err != nil {
					return err
				}
				return ours.record(m)
			})
		},
		func() (float64, error) {
			return appendRate(b.Time, func(w, n int) error { return bare.append(tr.bytes[at(w, n)]) })
		},
		func() (float64, error) {
			return appendRate(b.Time, func(w, n int) error { return record(rowless, tr.messages[at(w, n)]) })
		},
	})
	if err != nil {
		return err
	}
	s.Goals = append(s.Goals,
		ratio("appends in process, both archives ÷ bare Pebble", figures[0], figures[2], "bare Pebble", 0.6, false),
		told(ratio("the same, and parsed from bytes", figures[1], figures[2], "bare Pebble", 0, false)),
		told(ratio("the same, decided on and in the log, without any rows", figures[3], figures[2], "bare Pebble", 0, false)))
	s.Tables = append(s.Tables, Table{Title: "Appends", Header: []string{"", "appends/s"}, Rows: [][]string{
		{"mamlog, both archives", number(median(figures[0]))},
		{"mamlog, parsed from bytes", number(median(figures[1]))},
		{"mamlog, in the log alone", number(median(figures[3]))},
		{"bare Pebble, the bytes once", number(median(figures[2]))},
	}})
	return nil
}

// anywhere is how many places of an archive are read by turns.
const anywhere = 64

func (b *Bench) floorPages(ctx context.Context, dir string, s *Section) (err error) {
	now := time.Now()
	const small, large = 0, 1
	var all [2]*contents
	var stores [2]*store
	defer func() {
		for _, st := range stores {
			if st != nil {
				err = errors.Join(err, st.close())
			}
		}
	}()
	for i, n := range []int{b.Small, b.Large} {
		b.say("fill an archive of %s messages", grouped(int64(n)))
		all[i] = newContents(b.text, b.Seed, "owner", n, now)
		path := filepath.Join(dir, fmt.Sprintf("pages%d", i))
		if err := fillDir(path, host, all[i:i+1], nil); err != nil {
			return err
		}
		// Opened anew all is read from tables: else the newest messages would lie in
		// memory.
		if stores[i], err = openStore(path, host, 0, time.Time{}); err != nil {
			return err
		}
		if err := stores[i].rest(ctx); err != nil {
			return err
		}
	}
	bare, err := openFloor(filepath.Join(dir, "pages-floor"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.db.Close()) }()
	b.say("fill bare Pebble")
	if err := bare.fill(ctx, all[large]); err != nil {
		return err
	}
	b.say("pages, %d rounds", b.Rounds)
	var buf []byte
	scan := func(before func(n int) uint64) func() (float64, error) {
		return func() (float64, error) {
			return rateOf(b.Time, func(n int) error {
				buf, err = bare.page(before(n), buf[:0])
				return err
			})
		}
	}
	places := rand.New(rand.NewPCG(b.Seed, 6))
	sides := []func() (float64, error){
		scan(func(int) uint64 { return uint64(b.Large) + 1 }),
		scan(func(int) uint64 { return pageSize + 1 + places.Uint64N(uint64(b.Large-pageSize)) }),
	}
	names := []string{"bare Pebble, the newest 50 rows", "bare Pebble, 50 rows anywhere"}
	// rows of both stores, small first
	type shape struct {
		name, with string
		set        func(c *contents, s *store) ([]string, error)
		want       func(c *contents) sequence // nil: no bodies
		growth     float64                    // goal for large ÷ small; 0: none
	}
	fixed := func(set string) func(*contents, *store) ([]string, error) {
		return func(*contents, *store) ([]string, error) { return []string{set}, nil }
	}
	last := func(with string) func(c *contents) sequence {
		return func(c *contents) sequence {
			all := c.having(with)
			n := min(pageSize, all.n)
			return sequence{all.at(all.n - n), all.every, n}
		}
	}
	before := func(places int) func(*contents, *store) ([]string, error) {
		return func(c *contents, s *store) (sets []string, err error) {
			for i := range places {
				id, err := s.idAt(c, pageSize+(c.N-pageSize)*(2*i+1)/(2*places))
				if err != nil {
					return nil, err
				}
				sets = append(sets, "<max>50</max><before>"+id+"</before>")
			}
			return sets, nil
		}
	}
	shapes := []shape{
		{"newest page", "", fixed("<max>50</max><before/>"), last(""), 1.2},
		{"oldest page", "", fixed("<max>50</max>"), func(*contents) sequence { return sequence{0, 1, pageSize} }, 1.2},
		{"back from the middle", "", before(1), nil, 1.2},
		{"back from anywhere", "", before(anywhere), nil, 0},
		{"newest page, with= 1 in 20", frequentContact, fixed("<max>50</max><before/>"), last(frequentContact), 1.2},
		{"newest page, with= 1 in 10,000", rareContact, fixed("<max>50</max><before/>"), last(rareContact), 0},
		{"count alone (max=0)", "", fixed("<max>0</max>"), nil, 0},
	}
	at := make(map[string][2]int) // of shape: its figures
	for _, sh := range shapes {
		for i, st := range stores {
			c := all[i]
			want := pageSize
			if sh.want != nil {
				if want = sh.want(c).n; want == 0 {
					continue
				}
			} else if strings.Contains(sh.name, "max=0") {
				want = 0
			}
			sets, err := sh.set(c, st)
			if err != nil {
				return err
			}
			var readers []*reader
			for _, set := range sets {
				var check func([][]byte) error
				if sh.want != nil {
					check = checkPage(c, sh.want(c))
				}
				r, err := st.newReader(c.User, sh.with, set, want+1, check)
				if err != nil {
					return fmt.Errorf("%s: %w", sh.name, err)
				}
				readers = append(readers, r)
			}
			place := at[sh.name]
			place[i] = len(sides)
			at[sh.name] = place
			sides = append(sides, readRate(b.Time/2, readers...))
			names = append(names, fmt.Sprintf("mamlog, %s of %s", sh.name, grouped(int64(c.N))))
		}
	}
	// A round more, whose figures are those of cold caches.
	figures, err := inTurns(b.Rounds+1, sides)
	if err != nil {
		return err
	}
	t := Table{Title: "Pages, one reader", Header: []string{"", "pages/s", "µs a page"}}
	for i := range figures {
		figures[i] = figures[i][1:]
		t.Rows = append(t.Rows, []string{names[i], number(median(figures[i])), number(1e6 / median(figures[i]))})
	}
	s.Tables = append(s.Tables, t)
	of := func(name string, size int) []float64 { return figures[at[name][size]] }
	s.Goals = append(s.Goals,
		ratio("newest page of 50 in process ÷ bare scan, rate", of("newest page", large), figures[0], names[0], 0.7, false),
		ratio("the same with= 1 in 20", of("newest page, with= 1 in 20", large), figures[0], names[0], 0.5, false),
		ratio("the same with= 1 in 10,000", of("newest page, with= 1 in 10,000", large), figures[0], names[0], 0.5, false),
		told(ratio("page anywhere ÷ bare scan anywhere, rate", of("back from anywhere", large), figures[1], names[1], 0, false)))
	for _, sh := range shapes {
		if p := at[sh.name]; p[small] == 0 || p[large] == 0 {
			continue
		}
		g := ratio(fmt.Sprintf("cost of %s, %s ÷ %s messages", sh.name, grouped(int64(b.Large)), grouped(int64(b.Small))),
			of(sh.name, small), of(sh.name, large), "itself", sh.growth, true)
		if g.Open = sh.growth == 0; sh.name != "count alone (max=0)" {
			s.Goals = append(s.Goals, g)
		}
	}
	counting, err := b.counting(stores[large], all[large])
	s.Goals = append(s.Goals, counting)
	return err
}

// counting compares a page with count and index with one without, which only a
// caller of the projections can ask for.
func (b *Bench) counting(s *store, c *contents) (Goal, error) {
	class, err := s.class()
	if err != nil {
		return Goal{}, err
	}
	with := projections.Query{Class: class, Owner: c.User + "@" + host, Backward: true, Max: pageSize}
	without := with
	without.Uncounted = true
	side := func(q projections.Query) func() (float64, error) {
		return func() (float64, error) {
			rate, err := rateOf(b.Time/2, func(int) error {
				p, err := s.rows.Visit(q, func(*projections.Row) error { return nil })
				if err == nil && p.Len != q.Max {
					err = fmt.Errorf("a page has %d rows, want %d", p.Len, q.Max)
				}
				return err
			})
			return 1 / rate, err
		}
	}
	figures, err := inTurns(b.Rounds, []func() (float64, error){side(with), side(without)})
	if err != nil {
		return Goal{}, err
	}
	return ratio("cost of a page with count and index ÷ without", figures[0], figures[1], "itself", 1.05, true), nil
}

// idAt is the archive id of the message with n before it.
func (s *store) idAt(c *contents, n int) (id string, err error) {
	_, err = s.newReader(c.User, "", fmt.Sprintf("<max>1</max><index>%d</index>", n), 2, func(answer [][]byte) error {
		e, err := stanza.Parse(answer[0])
		if err == nil {
			id = e.First().Attr("id")
		}
		return err
	})
	return id, err
}
