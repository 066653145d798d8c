package integrations

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

// lazy is something that several tests use: they do nothing to it that another
// would notice. The first one starts it, TestMain ends it.
type lazy[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (l *lazy[T]) get(t *testing.T, start func() (T, error)) T {
	t.Helper()
	l.once.Do(func() { l.value, l.err = start() })
	if l.err != nil {
		t.Fatal(l.err)
	}
	return l.value
}

var shared = struct {
	sites map[string]*lazy[*site]
	far   lazy[*peers.Server]
	s2s   lazy[map[string]string] // addresses for servers, by domain
}{sites: map[string]*lazy[*site]{"prosody": {}, "ejabberd": {}}}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, l := range shared.sites {
		if l.value == nil {
			continue
		}
		if err := l.value.close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if far := shared.far.value; far != nil {
		if err := far.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	conformance.RemoveBinary()
	os.Exit(code)
}

const (
	farDomain      = "far.example"      // of another server, whose users are strangers
	impostorDomain = "impostor.example" // of a second link's server; see TestIntruders
	botSecret      = "the bot's secret"
)

// bots are components of a site's server that are not mamlog's, one for each test
// that wants one: a server may share a domain's stanzas out among several
// connections.
var bots = []string{"beeper", "occupant", "intruder", "forger", "notifier"}

func botDomain(k kind, bot string) string { return bot + "." + k.name + ".example" }

// serverAddrs are where the servers talk to each other.
func serverAddrs(t *testing.T) map[string]string {
	return shared.s2s.get(t, func() (map[string]string, error) {
		addrs := map[string]string{}
		for _, name := range []string{"prosody", "ejabberd", "far", "asking.prosody", "asking.ejabberd"} {
			addr, err := peers.FreeAddr()
			if err != nil {
				return nil, err
			}
			for _, sub := range []string{"", "conference.", "archive.", "occupant."} {
				addrs[sub+name+".example"] = addr
			}
		}
		return addrs, nil
	})
}

// sharedSite is a site that has a host for every set of options in the suite,
// and knows the server far.
func sharedSite(t *testing.T, k kind) *site {
	t.Helper()
	s := shared.sites[k.name].get(t, func() (*site, error) {
		configs, err := suiteConfigs(k)
		if err != nil {
			return nil, err
		}
		addrs := serverAddrs(t)
		impostor, err := newImpostor()
		if err != nil {
			return nil, err
		}
		components := map[string]string{}
		for _, bot := range bots {
			components[botDomain(k, bot)] = botSecret
		}
		s, err := startSite(context.Background(), k, siteOptions{
			configs: configs, linked: []string{impostorDomain},
			links: fmt.Sprintf("  - {server: %q, domain: %q, secret: impostor, hosts: [%s]}\n", impostor.Addr(), "archive."+impostorDomain, impostorDomain),
			server: peers.Options{
				S2SAddr: addrs[k.name+".example"], Remote: map[string]string{farDomain: addrs[farDomain]},
				Components: components, Modules: []string{k.push},
			},
		})
		if err != nil {
			return nil, err
		}
		s.impostor = impostor
		return s, nil
	})
	t.Cleanup(func() { s.showLogs(t) })
	return s
}

// far is a server that nobody made friends with.
func far(t *testing.T) *peers.Server {
	t.Helper()
	addrs := serverAddrs(t)
	return shared.far.get(t, func() (*peers.Server, error) {
		return peers.StartProsody(context.Background(), peers.Options{Host: farDomain, S2SAddr: addrs[farDomain], Remote: addrs})
	})
}

// suiteConfigs are the sets of options that the conformance suite asks for.
func suiteConfigs(k kind) ([]string, error) {
	suite, err := loadSuite(k)
	if err != nil {
		return nil, err
	}
	var configs []string
	for _, tr := range suite.Transcripts {
		configs = append(configs, tr.Config)
	}
	for _, c := range suite.Cases {
		configs = append(configs, c.Config)
	}
	slices.Sort(configs)
	return slices.Compact(configs), nil
}
