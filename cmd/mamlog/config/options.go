package config

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
	"mellium.im/xmpp/jid"

	"mamlog/log"
)

// globalOptions are those that only the file's top level has.
func (d *decoder) globalOptions() []option {
	c := d.config
	return []option{
		{"data_dir", d.text(&c.DataDir, "the path of a directory")},
		{"hosts", func(path string, n *yaml.Node) {
			if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
				d.fail(n, path, "this is %s; allowed is a list of at least one domain, as in [test.example]", describe(n))
				return
			}
			d.hosts = n
		}},
		{"c2s", func(path string, n *yaml.Node) {
			d.c2s = n
			d.mapping(path, n, d.c2sOptions())
		}},
		{"links", func(path string, n *yaml.Node) {
			if n.Kind != yaml.SequenceNode {
				d.fail(n, path, "this is %s; allowed is a list of links, [] for none", describe(n))
				return
			}
			d.links = n
		}},
		{"admin", func(path string, n *yaml.Node) {
			d.mapping(path, n, []option{{"socket", d.text(&c.AdminSocket, "the path of a Unix socket")}})
		}},
		{"metrics", func(path string, n *yaml.Node) {
			d.mapping(path, n, []option{{"listen", d.listen(&c.MetricsListen)}})
		}},
		{"log_level", d.oneOf(func(s string) { c.LogLevel = s }, "debug", "info", "warn", "error")},
		{"log_format", d.oneOf(func(s string) { c.LogFormat = s }, "auto", "console", "json")},
		{"cache_size", d.sizeBetween(&c.CacheSize, 1<<20, maxSize)},
		{"disk_reserve", d.sizeBetween(&c.DiskReserve, 1<<20, maxSize)},
		{"max_clock_jump", func(path string, n *yaml.Node) {
			if n.Kind == yaml.ScalarNode && n.Value == "never" {
				c.MaxClockJump = 0
				return
			}
			d.duration(&c.MaxClockJump, ", or never")(path, n)
		}},
		{"limits", d.limits},
	}
}

func (d *decoder) c2sOptions() []option {
	c := &d.config.C2S
	return []option{
		{"listen", d.listen(&c.Listen)},
		{"websocket_listen", d.listen(&c.WebSocketListen)},
		{"allow_plaintext", d.boolean(&c.AllowPlaintext)},
		{"certificate", d.pem(&c.Certificate)},
		{"key", d.pem(&c.Key)},
	}
}

// hostOptions are those of mod_mam; they stand at the top level for all hosts,
// and in a host's mapping for that one.
func (d *decoder) hostOptions(h *Host) []option {
	a := &h.Archive
	return []option{
		{"archive_expires_after", func(path string, n *yaml.Node) {
			if n.Kind == yaml.ScalarNode && n.Value == "never" {
				a.ExpiresAfter = 0
				return
			}
			d.duration(&a.ExpiresAfter, `, or "never"`)(path, n)
		}},
		{"default_archive_policy", d.oneOf(func(s string) { a.DefaultPolicy = policies[s] }, "true", "false", "roster", "always", "never")},
		{"archive_cleanup_interval", d.duration(&a.CleanupInterval, "")},
		{"archive_quota_items", d.quota(&a.QuotaItems, ParseQuotaItems)},
		{"archive_quota_bytes", d.quota(&a.QuotaBytes, ParseQuotaBytes)},
		{"max_archive_query_results", d.positive(&a.MaxQueryResults)},
		{"archive_store", func(path string, n *yaml.Node) {
			if !d.storeName(path, n, n) {
				return
			}
			h.Store = n.Value
		}},
		{"dont_archive_namespaces", d.namespaces(&a.DontArchiveNamespaces)},
		{"mam_smart_enable", d.boolean(&a.SmartEnable)},
		{"storage", func(path string, n *yaml.Node) { d.storage(path, n, h) }},
	}
}

var policies = map[string]log.Default{
	"true": log.Default_DEFAULT_ALWAYS, "always": log.Default_DEFAULT_ALWAYS,
	"false": log.Default_DEFAULT_NEVER, "never": log.Default_DEFAULT_NEVER,
	"roster": log.Default_DEFAULT_ROSTER,
}

// readHosts reads the list of hosts: names, or a mapping of one name to options.
func (d *decoder) readHosts(list *yaml.Node) {
	lines := make(map[string]int)
	for i, n := range list.Content {
		n, path := target(n), fmt.Sprintf("hosts[%d]", i)
		name, options := n, (*yaml.Node)(nil)
		if n.Kind == yaml.MappingNode {
			if len(n.Content) != 2 {
				d.fail(n, path, "this mapping has %d keys; allowed is one, the host's name, with the host's options indented below it", len(n.Content)/2)
				continue
			}
			name, options = n.Content[0], target(n.Content[1])
		}
		if !isText(name) {
			d.fail(name, path, "this is %s; allowed is a domain, or a domain with a mapping of options", describe(name))
			continue
		}
		j, err := jid.New("", name.Value, "")
		if err != nil || name.Value == "" || strings.ContainsAny(name.Value, "@/ ") {
			d.fail(name, path, "%q is not a domain name", name.Value)
			continue
		}
		h := d.base
		h.Name, h.Storage = j.Domainpart(), maps.Clone(d.base.Storage)
		if line, twice := lines[h.Name]; twice {
			d.fail(name, path, "the host %s is listed a second time; the first is in line %d", h.Name, line)
			continue
		}
		lines[h.Name] = name.Line
		if options != nil && options.Tag != "!!null" {
			d.mapping(join(path, h.Name), options, d.hostOptions(&h))
		}
		d.config.Hosts = append(d.config.Hosts, h)
	}
}

// duration reads a time span; more are further words that are allowed.
func (d *decoder) duration(to *time.Duration, more string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!str" {
			d.fail(n, path, "this is %s; allowed is %s%s", describe(n), durationForms, more)
			return
		}
		v, err := ParseDuration(n.Value)
		if err != nil {
			d.fail(n, path, "%v%s", err, more)
			return
		}
		*to = v
	}
}

func (d *decoder) positive(to *int) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || v < 1 || v > math.MaxInt32 {
			d.fail(n, path, "this is %s; allowed is an integer from 1 to %d", describe(n), math.MaxInt32)
			return
		}
		*to = v
	}
}

func (d *decoder) namespaces(to *[]string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			d.fail(n, path, "this is %s; allowed is a list of XML namespaces, [] for none", describe(n))
			return
		}
		var list []string
		lines := make(map[string]int)
		for i, e := range n.Content {
			e = target(e)
			at := fmt.Sprintf("%s[%d]", path, i)
			if e.Kind != yaml.ScalarNode || e.Tag != "!!str" || e.Value == "" {
				d.fail(e, at, "this is %s; allowed is an XML namespace", describe(e))
				continue
			}
			if line, twice := lines[e.Value]; twice {
				d.fail(e, at, "%s is listed a second time; the first is in line %d", e.Value, line)
				continue
			}
			lines[e.Value] = e.Line
			list = append(list, e.Value)
		}
		*to = list
	}
}
