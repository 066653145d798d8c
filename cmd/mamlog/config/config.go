package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mamlog/log"
	"mamlog/xep0313"
)

// Config is a whole configuration, checked, with every default filled in.
type Config struct {
	File          string // it was read from, as it was named
	DataDir       string // as it was written: relative to the working directory
	Hosts         []Host
	C2S           C2S
	Links         []Link
	AdminSocket   string
	MetricsListen string // empty: only on the admin socket
	LogLevel      string // debug, info, warn or error
	LogFormat     string // auto, console or json
	CacheSize     int64  // bytes, shared by all stores
	Limits        Limits
	DiskReserve   int64 // bytes; with less free space nothing is archived

	// MaxClockJump is how far the clock may be ahead of the time that has passed
	// until nothing expires any more; 0: as far as it likes.
	MaxClockJump time.Duration
}

// C2S is where and how clients connect to the hosts that are on no link.
type C2S struct {
	Listen           string // empty, as is WebSocketListen: off, since there are links
	WebSocketListen  string // empty: no WebSocket
	AllowPlaintext   bool
	Certificate, Key string // PEM files; empty: a self-signed certificate
}

// Link is how mamlog becomes the archive of an XMPP server: as its component.
type Link struct {
	Server         string // host:port
	Domain         string // of the component, prepared
	Secret         string // empty: in SecretFile
	SecretFile     string
	Hosts          []string // that the server has, prepared
	TLS            bool
	CA             string // PEM file; empty: the system's authorities
	ServerName     string // in the server's certificate; empty: the host of Server
	AllowPlaintext bool
	Delegation     bool // clients may ask without a module in the server
}

// Host is one domain with the options in force for it.
type Host struct {
	Name     string // prepared
	Archive  xep0313.Options
	Store    string             // archive_store
	Storage  map[string]Backend // by name of store; Pebble where nothing is said
	Fallback bool               // memory, where the store's data can't be opened
}

// Backend is what holds a store.
type Backend string

const (
	Pebble Backend = "pebble"
	Memory Backend = "memory"
)

// Backend is what holds the host's archives.
func (h Host) Backend() Backend {
	if b, ok := h.Storage[h.Store]; ok {
		return b
	}
	return Pebble
}

// Store is one store of messages, which one host or several use.
type Store struct {
	Name     string // unique, for people and metrics
	Dir      string // in DataDir; nothing is there for a store in memory
	Backend  Backend
	Fallback bool // all of its hosts allow memory instead of data that can't be opened
	Hosts    []string
}

// MainStore is the name of the store of everything but messages.
const MainStore = "main"

// Stores returns the stores of messages that the hosts use. A name that some
// hosts keep on disk and others in memory is two stores.
func (c *Config) Stores() []Store {
	type key struct {
		name    string
		backend Backend
	}
	backends := make(map[string]map[Backend]bool)
	index := make(map[key]int)
	var stores []Store
	for _, h := range c.Hosts {
		k := key{h.Store, h.Backend()}
		i, ok := index[k]
		if !ok {
			i = len(stores)
			index[k] = i
			stores = append(stores, Store{
				Name: k.name, Dir: filepath.Join(c.DataDir, "stores", k.name), Backend: k.backend, Fallback: true,
			})
			if backends[k.name] == nil {
				backends[k.name] = make(map[Backend]bool)
			}
			backends[k.name][k.backend] = true
		}
		stores[i].Hosts = append(stores[i].Hosts, h.Name)
		stores[i].Fallback = stores[i].Fallback && h.Fallback
	}
	for i, s := range stores {
		if len(backends[s.Name]) > 1 && s.Backend == Memory {
			stores[i].Name += " (memory)"
		}
	}
	return stores
}

// MainDir is the directory of the store of everything but messages.
func (c *Config) MainDir() string { return filepath.Join(c.DataDir, "main") }

// HostNames are the names of all hosts.
func (c *Config) HostNames() []string {
	names := make([]string, len(c.Hosts))
	for i, h := range c.Hosts {
		names[i] = h.Name
	}
	return names
}

// LocalHosts are the names of the hosts that are on no link: their accounts are
// here.
func (c *Config) LocalHosts() []string {
	var names []string
	for _, h := range c.Hosts {
		if c.LinkOf(h.Name) == nil {
			names = append(names, h.Name)
		}
	}
	return names
}

// LinkOf returns the link that the host is on, nil if it is on none.
func (c *Config) LinkOf(host string) *Link {
	i := slices.IndexFunc(c.Links, func(l Link) bool { return slices.Contains(l.Hosts, host) })
	if i < 0 {
		return nil
	}
	return &c.Links[i]
}

// Host returns the host with that name, nil if there is none.
func (c *Config) Host(name string) *Host {
	i := slices.IndexFunc(c.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Hosts[i]
}

// Load reads the file, and looks whether the files that it names are there. What is wrong in it is an Errors.
func Load(path string) (*Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, b)
}

func defaults(file string) *Config {
	return &Config{
		File:        file,
		C2S:         C2S{Listen: "127.0.0.1:5222"},
		LogLevel:    "info",
		LogFormat:   "auto",
		CacheSize:   192 << 20,
		Limits:      defaultLimits(),
		DiskReserve: 128 << 20,

		MaxClockJump: 24 * time.Hour,
	}
}

// defaultHost has mod_mam's defaults.
func defaultHost() Host {
	return Host{
		Archive: xep0313.Options{
			ExpiresAfter:          7 * 24 * time.Hour,
			DefaultPolicy:         log.Default_DEFAULT_ALWAYS,
			CleanupInterval:       4 * time.Hour,
			MaxQueryResults:       50,
			DontArchiveNamespaces: []string{"http://jabber.org/protocol/chatstates"},
		},
		Store:   "archive",
		Storage: map[string]Backend{},
	}
}
