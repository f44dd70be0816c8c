//go:build !race

package gateway_test

// raceDetector tells whether it slows this test down, by a factor of five or so.
const raceDetector = false
