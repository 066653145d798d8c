package config

import (
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"mamlog/log"
)

// hiddenSecret is written for a secret: the effective configuration ends up on
// screens and in tickets.
const hiddenSecret = "not-shown"

// Format writes the effective configuration, which is a configuration itself
// that says everything and says it for each host, but for secrets.
func (c *Config) Format() string {
	var b strings.Builder
	line := func(indent int, key string, value string) {
		b.WriteString(strings.Repeat(" ", indent))
		b.WriteString(key + ":")
		if value != "" {
			b.WriteString(" " + value)
		}
		b.WriteByte('\n')
	}
	line(0, "data_dir", scalar(c.DataDir))
	if c.C2S.Listen != "" {
		line(0, "c2s", "")
		line(2, "listen", scalar(c.C2S.Listen))
		if c.C2S.WebSocketListen != "" {
			line(2, "websocket_listen", scalar(c.C2S.WebSocketListen))
		}
		line(2, "allow_plaintext", fmt.Sprint(c.C2S.AllowPlaintext))
		if c.C2S.Certificate != "" {
			line(2, "certificate", scalar(c.C2S.Certificate))
			line(2, "key", scalar(c.C2S.Key))
		}
	}
	if len(c.Links) > 0 {
		line(0, "links", "")
	}
	for _, l := range c.Links {
		b.WriteString("  - server: " + scalar(l.Server) + "\n")
		line(4, "domain", scalar(l.Domain))
		if l.SecretFile != "" {
			line(4, "secret_file", scalar(l.SecretFile))
		} else {
			line(4, "secret", hiddenSecret)
		}
		line(4, "hosts", "")
		for _, h := range l.Hosts {
			b.WriteString("      - " + scalar(h) + "\n")
		}
		line(4, "tls", fmt.Sprint(l.TLS))
		if l.CA != "" {
			line(4, "ca", scalar(l.CA))
		}
		if l.ServerName != "" {
			line(4, "server_name", scalar(l.ServerName))
		}
		line(4, "allow_plaintext", fmt.Sprint(l.AllowPlaintext))
		line(4, "delegation", fmt.Sprint(l.Delegation))
	}
	line(0, "admin", "{socket: "+flow(c.AdminSocket)+"}")
	if c.MetricsListen != "" {
		line(0, "metrics", "{listen: "+flow(c.MetricsListen)+"}")
	}
	line(0, "log_level", c.LogLevel)
	line(0, "log_format", c.LogFormat)
	line(0, "cache_size", formatSize(c.CacheSize))
	line(0, "disk_reserve", formatSize(c.DiskReserve))
	line(0, "max_clock_jump", FormatExpiry(c.MaxClockJump))
	line(0, "limits", "")
	b.WriteString(c.Limits.format())
	line(0, "hosts", "")
	for _, h := range c.Hosts {
		b.WriteString("  - " + scalar(h.Name) + ":\n")
		line(6, "archive_expires_after", FormatExpiry(h.Archive.ExpiresAfter))
		line(6, "default_archive_policy", FormatPolicy(h.Archive.DefaultPolicy))
		line(6, "archive_cleanup_interval", FormatDuration(h.Archive.CleanupInterval))
		line(6, "archive_quota_items", FormatQuotaItems(h.Archive.QuotaItems))
		line(6, "archive_quota_bytes", FormatQuotaBytes(h.Archive.QuotaBytes))
		line(6, "max_archive_query_results", fmt.Sprint(h.Archive.MaxQueryResults))
		line(6, "archive_store", scalar(h.Store))
		if len(h.Archive.DontArchiveNamespaces) == 0 {
			line(6, "dont_archive_namespaces", "[]")
		} else {
			line(6, "dont_archive_namespaces", "")
			for _, ns := range h.Archive.DontArchiveNamespaces {
				b.WriteString("        - " + scalar(ns) + "\n")
			}
		}
		line(6, "mam_smart_enable", fmt.Sprint(h.Archive.SmartEnable))
		line(6, "storage", "")
		line(8, scalar(h.Store), string(h.Backend()))
		fallback := "none"
		if h.Fallback {
			fallback = "memory"
		}
		line(8, "fallback", fallback)
	}
	return b.String()
}

// FormatPolicy writes d as default_archive_policy takes it.
func FormatPolicy(d log.Default) string {
	switch d {
	case log.Default_DEFAULT_ALWAYS:
		return "always"
	case log.Default_DEFAULT_NEVER:
		return "never"
	case log.Default_DEFAULT_ROSTER:
		return "roster"
	}
	return d.String()
}

// FormatExpiry writes d as archive_expires_after takes it.
func FormatExpiry(d time.Duration) string {
	if d == 0 {
		return "never"
	}
	return FormatDuration(d)
}

// FormatQuotaItems writes n as archive_quota_items takes it.
func FormatQuotaItems(n uint64) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

// FormatQuotaBytes writes n as archive_quota_bytes takes it.
func FormatQuotaBytes(n uint64) string {
	if n == 0 {
		return "none"
	}
	return formatSize(int64(n))
}

func formatSize(n int64) string {
	for unit, name := range []string{"GiB", "MiB", "KiB"} {
		if size := int64(1) << (30 - 10*unit); n%size == 0 {
			return fmt.Sprint(n/size) + name
		}
	}
	return fmt.Sprint(n)
}

// scalar quotes s where YAML would read something else.
func scalar(s string) string {
	b, err := yaml.Dump(s)
	if err != nil {
		return fmt.Sprintf("%q", s) // a JSON string is a YAML string
	}
	return strings.TrimSpace(string(b))
}

// flow is scalar for a place inside of braces.
func flow(s string) string {
	if strings.ContainsAny(s, "{}[],:") {
		return fmt.Sprintf("%q", s)
	}
	return scalar(s)
}
