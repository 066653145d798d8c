package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v4"
)

const maxSize = 1024 << 30 // more is a slip of the keyboard

var sizeForm = regexp.MustCompile(`^([0-9]+) ?(KiB|MiB|GiB)?$`)

// parseSize reads a number of bytes.
func parseSize(s string, min, max int64) (int64, error) {
	units := map[string]int64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
	if m := sizeForm.FindStringSubmatch(s); m != nil {
		v, err := strconv.ParseInt(m[1], 10, 64)
		if unit := units[m[2]]; err == nil && v <= max/unit && v*unit >= min {
			return v * unit, nil
		}
	}
	return 0, fmt.Errorf("a number of bytes from %s to %s, as in 268435456, 256MiB or 1GiB", formatSize(min), formatSize(max))
}

// sizeBetween reads a number of bytes.
func (d *decoder) sizeBetween(to *int64, min, max int64) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		v, err := parseSize(n.Value, min, max)
		if n.Kind != yaml.ScalarNode || err != nil {
			_, err = parseSize("", min, max)
			d.fail(n, path, "this is %s; allowed is %v", describe(n), err)
			return
		}
		*to = v
	}
}

// ParseQuotaItems reads archive_quota_items; 0 is none.
func ParseQuotaItems(s string) (uint64, error) {
	if s == "none" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0, fmt.Errorf("%q is no quota; allowed is an integer from 1 to %d, or none", s, math.MaxInt32)
	}
	return n, nil
}

// ParseQuotaBytes reads archive_quota_bytes; 0 is none.
func ParseQuotaBytes(s string) (uint64, error) {
	if s == "none" {
		return 0, nil
	}
	n, err := parseSize(s, 1<<10, maxSize)
	if err != nil {
		return 0, fmt.Errorf("%q is no quota; allowed is %w, or none", s, err)
	}
	return uint64(n), nil
}

func (d *decoder) quota(to *uint64, parse func(string) (uint64, error)) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		v, err := parse(n.Value)
		switch {
		case n.Kind != yaml.ScalarNode:
			d.fail(n, path, "this is %s; allowed is a number, or none", describe(n))
		case err != nil:
			d.fail(n, path, "%v", err)
		default:
			*to = v
		}
	}
}
