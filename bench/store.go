package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// store is an archive on disk for the host bench.example, without a server.
type store struct {
	archive *xep0313.Archive
	rows    *projections.Store
	close   func() error
}

func openStore(dir string) (*store, error) {
	clock := log.NewClock(nil)
	cache := pebble.NewCache(cacheBytes)
	closers := []func() error{}
	open := func(name string) (*log.Log, *projections.Store, error) {
		l, err := log.Open(filepath.Join(dir, name, "log"), log.Options{Clock: clock, Cache: cache})
		if err != nil {
			return nil, nil, err
		}
		p, err := projections.Open(filepath.Join(dir, name, "projections"), l, projections.Options{Cache: cache})
		if err != nil {
			return nil, nil, errors.Join(err, l.Close())
		}
		closers = append(closers, l.Close, p.Close)
		return l, p, nil
	}
	s := &store{close: func() (err error) {
		defer cache.Unref()
		for _, c := range closers {
			err = errors.Join(err, c())
		}
		return err
	}}
	mainLog, mainRows, err := open("main")
	if err != nil {
		return nil, err
	}
	l, p, err := open("archive")
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.rows = p
	o := xep0313.DefaultOptions()
	o.ExpiresAfter = 0
	s.archive, err = xep0313.New(context.Background(), xep0313.Config{
		Log: mainLog, Projections: mainRows, Contacts: mainRows,
		Hosts: []xep0313.Host{{Name: "bench.example", Options: o, Log: l, Archives: p}},
	})
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// cacheBytes is the server's default cache_size.
const cacheBytes = 256 << 20

var owner = jid.MustParse("owner@bench.example/desk")

// The peers of the filled archive: one message in ten is of the frequent
// contact, one in a thousand of the rare one, but never fewer than two pages.
const (
	frequentPeer = "frequent@far.example"
	rarePeer     = "rare@far.example"
)

const words = `archive message letter morning evening river window answer question yesterday
tomorrow coffee train station meeting weather garden kitchen music story between because perhaps
nothing something together always never sometimes`

// body is text of 20 to 400 bytes.
func body(rng *rand.Rand) string {
	all := strings.Fields(words)
	var b strings.Builder
	for size := 20 + rng.IntN(380); b.Len() < size; {
		b.WriteString(all[rng.IntN(len(all))])
		b.WriteByte(' ')
	}
	return b.String()
}

// fill records n messages to the owner. progress, if not nil, is told how many
// are recorded.
func (s *store) fill(n int, seed uint64, progress func(int)) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	rareEvery := min(1000, max(n/100, 1))
	var failed atomic.Pointer[error]
	inFlight := make(chan struct{}, 1024)
	for i := range n {
		from := fmt.Sprintf("peer%d@far.example", rng.IntN(50))
		switch {
		case i%rareEvery == rareEvery/2:
			from = rarePeer
		case i%10 == 3:
			from = frequentPeer
		}
		m := xep0313.Message{From: jid.MustParse(from + "/phone"), To: owner.Bare(), ToLocal: true}
		m.Stanza = stanza.New(stanza.NSClient, "message", "type", "chat", "id", fmt.Sprintf("%016x", rng.Uint64()),
			"from", from+"/phone", "to", owner.Bare().String()).
			Add(stanza.New(stanza.NSClient, "body").AddText(body(rng)),
				stanza.New("urn:xmpp:sid:0", "origin-id", "id", fmt.Sprintf("%016x", rng.Uint64())))
		inFlight <- struct{}{}
		err := s.archive.Record(m, func(d xep0313.Delivery) {
			if d.Err != nil {
				failed.CompareAndSwap(nil, &d.Err)
			}
			<-inFlight
		})
		if err != nil {
			return err
		}
		if progress != nil && i%1000 == 0 {
			progress(i)
		}
	}
	for range cap(inFlight) {
		inFlight <- struct{}{}
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
