//go:build race

package turn

// raceEnabled: the race detector makes sync.Pool forget, on purpose.
const raceEnabled = true
