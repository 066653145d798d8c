package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// patience bounds every wait for a process. It only ends what hangs.
const patience = time.Minute

// process is a program in a process group of its own, so that it ends with all
// of its children. It ends with this process too.
type process struct {
	log  *logBuffer // of every program started, one after the other
	cmd  *exec.Cmd
	exit chan struct{} // closed when it has ended
	err  error         // how it ended; read when exit is closed
}

// start runs cmd and returns when ready returns nil. ready is asked again until
// then.
func (p *process) start(ctx context.Context, cmd *exec.Cmd, ready func(context.Context) error) error {
	if p.running() {
		return errors.New("it runs already")
	}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.exit = cmd, make(chan struct{})
	go func(exit chan struct{}) {
		p.err = cmd.Wait()
		close(exit)
	}(p.exit)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exit:
			return fmt.Errorf("%s ended before it was ready: %v\n%s", cmd.Path, p.err, p.log)
		case <-ctx.Done():
			_ = p.kill()
			return fmt.Errorf("%s was not ready in time: %w\n%s", cmd.Path, err, p.log)
		case <-time.After(20 * time.Millisecond): // until the next look
		}
	}
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exit:
		return false
	default:
		return true
	}
}

// stop sends the signal and waits for the end. What does not end is killed, and
// that is an error. nudge, if not nil, is called now and then meanwhile; when it
// says that the program can't end any more, it is killed, and that is none.
func (p *process) stop(signal syscall.Signal, nudge func() (broken bool)) error {
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return err
	}
	late := time.After(patience)
	for {
		select {
		case <-p.exit:
			return p.kill() // children that outlived it
		case <-late:
			return errors.Join(fmt.Errorf("%s ignored the signal to stop\n%s", p.cmd.Path, p.log), p.kill())
		case <-time.After(2 * time.Second): // until the next nudge
			if nudge != nil && nudge() {
				return p.kill()
			}
		}
	}
}

// kill ends the whole group with SIGKILL.
func (p *process) kill() error {
	if p.cmd == nil {
		return nil
	}
	err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exit
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// logBuffer is a buffer that a process writes and a test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string { return l.since(0) }

// size is how many bytes were written.
func (l *logBuffer) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}

// since is what was written after the first n bytes.
func (l *logBuffer) since(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b.Bytes()[n:])
}
