package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where a report was made.
type Machine struct {
	CPU        string `json:"cpu"`
	Processors int    `json:"processors"`
	Memory     string `json:"memory"`
	FileSystem string `json:"file_system"` // of the stores
	Kernel     string `json:"kernel"`
	System     string `json:"system"`
}

func thisMachine(dir string) Machine {
	m := Machine{Processors: runtime.NumCPU(), CPU: after("/proc/cpuinfo", "model name"), System: strings.Trim(after("/etc/os-release", "PRETTY_NAME"), `"`)}
	var kib int64
	if _, err := fmt.Sscanf(after("/proc/meminfo", "MemTotal"), "%d", &kib); err == nil {
		m.Memory = fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	var f unix.Statfs_t
	if unix.Statfs(dir, &f) == nil {
		m.FileSystem = fileSystem(int64(f.Type))
	}
	return m
}

func fileSystem(kind int64) string {
	switch kind {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs, which syncs nothing"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("type %#x", kind)
}

// after is what a file says after a key and a colon or an equals sign.
func after(file, key string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(strings.TrimLeft(rest, "\t :="))
		}
	}
	return ""
}

// measuredPackages are the Debian packages that are compared with.
var measuredPackages = []string{"prosody", "ejabberd", "postgresql-15", "libsqlite3-0"}

// versions of everything that was measured.
func versions() map[string]string {
	v := map[string]string{"Go": runtime.Version()}
	for name, command := range map[string][]string{
		"mamlog": {"git", "describe", "--always", "--dirty"},
		"Pebble": {"go", "list", "-m", "-f", "{{.Version}}", "github.com/cockroachdb/pebble/v2"},
	} {
		if out, err := exec.Command(command[0], command[1:]...).Output(); err == nil {
			v[name] = strings.TrimSpace(string(out))
		}
	}
	for _, p := range measuredPackages {
		if out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", p).Output(); err == nil && len(out) > 0 {
			v[p] = string(out)
		}
	}
	return v
}
