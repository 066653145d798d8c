package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"mamlog/attach/c2s"
	"mamlog/integrations/peers"
)

// Host drives the embedded host in this very process, so that a CPU profile shows
// what a message and a page cost. Its figures include the clients'.
func (b *Bench) Host(ctx context.Context) (s Section, err error) {
	s = Section{ID: "host", Title: "The embedded host, to be profiled", Text: `Server and clients in one process: the figures are not to be compared with others.`}
	dir, err := os.MkdirTemp(b.Dir, "mamlog-bench-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	co := newContents(b.text, b.Seed, "owner", b.Large/10, time.Now())
	b.say("fill an archive of %s messages", grouped(int64(co.N)))
	if err := fillDir(dir, host, []*contents{co}, nil); err != nil {
		return s, err
	}
	st, err := openStore(dir, host, 0, time.Time{})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	accounts := &c2s.Accounts{Log: st.mainLog, Projections: st.mainRows, Hosts: []string{host}}
	server, err := c2s.New(c2s.Config{
		Listen: "127.0.0.1:0", AllowPlaintext: true, DataDir: dir, Hosts: []string{host},
		Accounts: accounts, Archive: st.archive, Log: st.mainLog, Projections: st.mainRows,
	})
	if err != nil {
		return s, err
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(serving) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	sys := &system{contender: embedded, accounts: accounts,
		server: &peers.Server{Name: "mamlog", Host: host, C2SAddr: server.Addr().String()}}
	if err := sys.register(ctx, co.User); err != nil {
		return s, err
	}
	l, err := newLoad(ctx, b.text, sys, loadOptions{pairs: b.Pairs, spread: 1, name: "p", seed: b.Seed})
	if err != nil {
		return s, err
	}
	defer l.close()
	b.say("messages")
	rate, err := l.throughput(ctx, b.Pairs, b.Window, b.Time/3, b.Time*time.Duration(b.Rounds))
	if err != nil {
		return s, err
	}
	if err := l.verify(ctx); err != nil {
		return s, err
	}
	t := Table{Header: []string{"", "a second"}, Rows: [][]string{{"messages", number(rate)}}}
	for _, k := range pageKinds {
		if co.having(k.with).n == 0 {
			continue
		}
		b.say("%s", k.Name)
		p, err := newPager(ctx, sys, co, k.ID)
		if err != nil {
			return s, err
		}
		r, err := readPages(ctx, []*pager{p}, k, b.Time)
		if err = errors.Join(err, r.first, p.Close()); err != nil {
			return s, fmt.Errorf("%s: %w", k.Name, err)
		}
		t.Rows = append(t.Rows, []string{k.Name, number(r.rate)})
	}
	s.Tables = append(s.Tables, t)
	return s, nil
}
