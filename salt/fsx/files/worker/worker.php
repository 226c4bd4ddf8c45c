<?php
/**
 * Takes calls from FreeSWITCH by outbound event socket, a process a call: answers and plays the
 * caller an echo until he hangs up. Usage: worker.php ADDRESS PORT
 *
 * SIGUSR1 or SIGTERM: listen no more, so that the next worker is tried, and leave after the last
 * call. A second worker on another port therefore makes a new release free of gaps.
 */

declare(strict_types=1);

const LONGEST_HEADER = 8192;
const LONGEST_BODY = 1 << 20;
const LINGER_SECONDS = 5;

/** The channel has gone, or what it sends cannot be read. */
final class ChannelGone extends RuntimeException
{
}

/** One call: the connection over which FreeSWITCH is told what to do with it. */
final class Channel
{
    /** @param resource $link */
    public function __construct(private $link)
    {
        stream_set_timeout($this->link, 24 * 3600);
    }

    /** Read one message: its headers, and its body under `body`. */
    public function read(): array
    {
        $headers = [];
        while (true) {
            $line = fgets($this->link, LONGEST_HEADER);
            if ($line === false) {
                throw new ChannelGone();
            }
            $line = rtrim($line, "\r\n");
            if ($line !== '') {
                [$name, $value] = array_pad(explode(': ', $line, 2), 2, '');
                $headers[$name] = rawurldecode($value);
            } elseif ($headers !== []) {
                return $headers + ['body' => $this->body((int) ($headers['Content-Length'] ?? 0))];
            }
        }
    }

    /** Send a command and return its reply; events that come before it are passed over. */
    public function ask(string ...$lines): array
    {
        if (fwrite($this->link, implode("\n", $lines) . "\n\n") === false) {
            throw new ChannelGone();
        }
        return $this->await('command/reply');
    }

    /** Have FreeSWITCH run a dialplan application on the channel. */
    public function execute(string $application): void
    {
        $this->ask('sendmsg', 'call-command: execute', "execute-app-name: $application");
    }

    /** Read on until a message of this type. */
    public function await(string $type): array
    {
        do {
            $message = $this->read();
        } while (($message['Content-Type'] ?? '') !== $type);
        return $message;
    }

    private function body(int $length): string
    {
        if ($length < 0 || $length > LONGEST_BODY) {
            throw new ChannelGone();
        }
        $body = $length === 0 ? '' : stream_get_contents($this->link, $length);
        if ($body === false || strlen($body) < $length) {
            throw new ChannelGone();
        }
        return $body;
    }
}

/** Serve one channel from greeting to hang-up. */
function serve(Channel $channel): void
{
    $channel->ask('connect');
    $channel->ask('linger ' . LINGER_SECONDS);
    $channel->execute('answer');
    $channel->execute('echo');
    $channel->await('text/disconnect-notice');
}

/** Fork a process that serves the call; the parent keeps nothing of it. */
function take($server, $link): void
{
    $child = pcntl_fork();
    if ($child === 0) {
        // A signal to leave is the parent's business: the call goes on to its end.
        pcntl_signal(SIGUSR1, SIG_IGN);
        pcntl_signal(SIGTERM, SIG_IGN);
        fclose($server);
        try {
            serve(new Channel($link));
        } catch (ChannelGone) {
        }
        exit(0);
    }
    if ($child === -1) {
        fwrite(STDERR, "cannot fork: the call goes back to the dialplan\n");
    }
    fclose($link);
}

[, $address, $port] = $argv + [null, '127.0.0.1', '9001'];
$server = @stream_socket_server("tcp://$address:$port", $code, $reason);
if ($server === false) {
    fwrite(STDERR, "worker $address:$port: cannot listen: $reason\n");
    exit(1);
}
$leaving = false;
pcntl_async_signals(true);
foreach ([SIGUSR1, SIGTERM] as $signal) {
    pcntl_signal($signal, function () use (&$leaving): void {
        $leaving = true;
    });
}
while (!$leaving) {
    $link = @stream_socket_accept($server, 1.0);
    if ($link !== false) {
        take($server, $link);
    }
    while (pcntl_waitpid(-1, $status, WNOHANG) > 0);
}
// Whoever has connected by now was told that somebody is there.
while (($link = @stream_socket_accept($server, 0.0)) !== false) {
    take($server, $link);
}
fclose($server);
while (pcntl_waitpid(-1, $status) > 0 || pcntl_get_last_error() === PCNTL_EINTR);
