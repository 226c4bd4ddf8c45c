<?php
/**
 * Takes calls from FreeSWITCH by outbound event socket, one at a time: greets the channel, plays
 * it an echo, and ends it when the caller does.
 *
 * SIGUSR1 (or SIGTERM) means: finish the call at hand, take no other, end. Usage: worker.php ADDRESS PORT
 */

declare(strict_types=1);

const LONGEST_HEADER = 8192;

$leaving = false;
pcntl_async_signals(true);
foreach ([SIGUSR1, SIGTERM] as $signal) {
    pcntl_signal($signal, function () use (&$leaving): void {
        $leaving = true;
    });
}

/** Read one event: its headers, and its body where it has one; null when the channel has gone. */
function read_event($link): ?array
{
    $headers = [];
    while (($line = @fgets($link, LONGEST_HEADER)) !== false || !feof($link)) {
        if ($line === false) {
            continue; // a signal came in between
        }
        $line = rtrim($line, "\r\n");
        if ($line === '') {
            if ($headers === []) {
                continue;
            }
            $length = (int) ($headers['Content-Length'] ?? 0);
            $body = $length > 0 ? (string) stream_get_contents($link, $length) : '';
            return ['headers' => $headers, 'body' => $body];
        }
        [$name, $value] = array_pad(explode(': ', $line, 2), 2, '');
        $headers[$name] = rawurldecode($value);
    }
    return null;
}

/** Have the channel run a dialplan application. */
function execute($link, string $application, string $data = ''): void
{
    $message = "sendmsg\ncall-command: execute\nexecute-app-name: $application\n";
    if ($data !== '') {
        $message .= "execute-app-arg: $data\n";
    }
    fwrite($link, $message . "\n");
}

/** Serve one channel from greeting to hang-up. */
function serve($link): void
{
    fwrite($link, "connect\n\n");
    if (read_event($link) === null) {
        return;
    }
    foreach (["myevents\n\n", "linger 5\n\n"] as $command) {
        fwrite($link, $command);
    }
    execute($link, 'answer');
    execute($link, 'echo');
    while (($event = read_event($link)) !== null) {
        if (($event['headers']['Content-Type'] ?? '') === 'text/disconnect-notice') {
            return;
        }
    }
}

[, $address, $port] = $argv + [null, '127.0.0.1', '9001'];
$server = @stream_socket_server("tcp://$address:$port", $code, $reason);
if ($server === false) {
    fwrite(STDERR, "worker $address:$port: cannot listen: $reason\n");
    exit(1);
}
while (!$leaving) {
    $link = @stream_socket_accept($server, 1.0);
    if ($link !== false) {
        stream_set_timeout($link, 3600);
        serve($link);
        fclose($link);
    }
}
