package sfu

import (
	"sync"

	"github.com/pion/interceptor"
)

// A lazily makes interceptors that begin with the first stream they are for.
// Most participants publish nothing, and every interceptor that reports has a
// goroutine and a ticker from the moment it is there.
type lazily struct {
	make  *interceptor.Registry
	local bool // they are for what is sent, else for what is received
}

// NewInterceptor implements interceptor.Factory.
func (f lazily) NewInterceptor(id string) (interceptor.Interceptor, error) {
	return &lazy{of: f, id: id}, nil
}

// A lazy stands for the interceptors of one connection. They must take the RTCP
// writer as it is.
type lazy struct {
	interceptor.NoOp
	of lazily
	id string

	mu     sync.Mutex // guards the following
	writer interceptor.RTCPWriter
	inner  interceptor.Interceptor // nil until the first stream
	closed bool
}

// BindRTCPWriter implements interceptor.Interceptor.
func (l *lazy) BindRTCPWriter(w interceptor.RTCPWriter) interceptor.RTCPWriter {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writer = w
	return w
}

// BindRTCPReader implements interceptor.Interceptor. What is received is bound
// before its RTCP.
func (l *lazy) BindRTCPReader(r interceptor.RTCPReader) interceptor.RTCPReader {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inner == nil {
		return r
	}
	return l.inner.BindRTCPReader(r)
}

// BindLocalStream implements interceptor.Interceptor.
func (l *lazy) BindLocalStream(info *interceptor.StreamInfo, w interceptor.RTPWriter) interceptor.RTPWriter {
	if i := l.begun(l.of.local); i != nil {
		return i.BindLocalStream(info, w)
	}
	return w
}

// BindRemoteStream implements interceptor.Interceptor.
func (l *lazy) BindRemoteStream(info *interceptor.StreamInfo, r interceptor.RTPReader) interceptor.RTPReader {
	if i := l.begun(!l.of.local); i != nil {
		return i.BindRemoteStream(info, r)
	}
	return r
}

// UnbindLocalStream implements interceptor.Interceptor.
func (l *lazy) UnbindLocalStream(info *interceptor.StreamInfo) {
	if i := l.begun(false); i != nil {
		i.UnbindLocalStream(info)
	}
}

// UnbindRemoteStream implements interceptor.Interceptor.
func (l *lazy) UnbindRemoteStream(info *interceptor.StreamInfo) {
	if i := l.begun(false); i != nil {
		i.UnbindRemoteStream(info)
	}
}

// begun returns the interceptors, and makes them if they are not there and begin
// is true. nil means that there are none.
func (l *lazy) begun(begin bool) interceptor.Interceptor {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inner != nil || !begin || l.closed {
		return l.inner
	}
	inner, err := l.of.make.Build(l.id)
	if err != nil {
		return nil // their factories fail for options only, which are constants
	}
	if l.writer != nil {
		inner.BindRTCPWriter(l.writer)
	}
	l.inner = inner
	return inner
}

// Close implements interceptor.Interceptor.
func (l *lazy) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.inner == nil {
		return nil
	}
	return l.inner.Close()
}
