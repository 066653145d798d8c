package bench

import (
	"os"

	"golang.org/x/sys/unix"
)

// alarm wakes a goroutine at moments of the monotonic clock. Unlike the runtime's
// timers it is exact while all else is idle, and unlike a thread that sleeps it
// leaves the processor to others: what comes from a socket wakes a server the same way.
type alarm struct {
	file *os.File
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &alarm{os.NewFile(uintptr(fd), "timer")}, nil
}

// wait returns when monotonic is at, in ns, or later.
func (a *alarm) wait(at int64) error {
	if monotonic() >= at {
		return nil
	}
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &unix.ItimerSpec{Value: unix.NsecToTimespec(at)}, nil)
	})
	if err == nil {
		err = os.NewSyscallError("timerfd_settime", setErr)
	}
	if err != nil {
		return err
	}
	var expirations [8]byte
	_, err = a.file.Read(expirations[:])
	return err
}

func (a *alarm) close() error { return a.file.Close() }
