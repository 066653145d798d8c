package config

import (
	"fmt"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v4"
)

var storeNameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// storeName checks the name of a store, which names a directory too.
func (d *decoder) storeName(path string, n, at *yaml.Node) bool {
	switch {
	case !isText(n) || !storeNameForm.MatchString(n.Value):
		d.fail(at, path, "this is %s; allowed is a plain file name of at most 64 letters, digits, dots, hyphens and underscores", describe(n))
	case n.Value == MainStore || n.Value == "fallback":
		d.fail(at, path, "%s has a meaning of its own; allowed is any other name", n.Value)
	default:
		return true
	}
	return false
}

// storageEntry is one line of a storage mapping, kept until it is known which
// stores are used.
type storageEntry struct {
	path string
	key  *yaml.Node
	host string // empty: at the top level
}

// storage reads which backend holds which store.
func (d *decoder) storage(path string, n *yaml.Node, h *Host) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "this is %s; allowed is a mapping of a store's name to pebble or memory, as in {archive: memory}", describe(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], target(n.Content[i+1])
		at := join(path, key.Value)
		if line, twice := seen[key.Value]; twice {
			d.fail(key, at, "it is set a second time; the first is in line %d", line)
			continue
		}
		seen[key.Value] = key.Line
		if key.Value == "fallback" {
			d.oneOf(func(s string) { h.Fallback = s == "memory" }, "memory", "none")(at, value)
			continue
		}
		if key.Value == MainStore {
			d.fail(key, at, "accounts, rosters and preferences are always on disk; only stores of messages can be set")
			continue
		}
		if d.storeName(at, key, key) {
			d.stores = append(d.stores, storageEntry{at, key, h.Name})
			d.oneOf(func(s string) { h.Storage[key.Value] = Backend(s) }, string(Pebble), string(Memory))(at, value)
		}
	}
}

// checkStorage refuses settings of stores that nothing uses: most likely a name
// is misspelt, and messages would end up elsewhere than meant.
func (d *decoder) checkStorage() {
	for _, e := range d.stores {
		var used []string
		for _, h := range d.config.Hosts {
			if (e.host == "" || e.host == h.Name) && !slices.Contains(used, h.Store) {
				used = append(used, h.Store)
			}
		}
		if len(used) == 0 || slices.Contains(used, e.key.Value) {
			continue
		}
		hint := ""
		if c := closest(e.key.Value, used); c != "" {
			hint = fmt.Sprintf("; did you mean %s?", c)
		}
		d.fail(e.key, e.path, "no archive_store has this name%s (allowed here: %s, fallback)", hint, alternatives(used))
	}
}
