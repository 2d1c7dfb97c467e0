-- Views over a node's store (node.sqlite), for whoever reads it: docs/history.md says what each column is.
-- They live in the connection that makes them, so that a store opened read-only will do, and nothing in it is changed.

CREATE TEMP VIEW ledger AS
SELECT seq,
       json_extract(line, '$.at_ms') AS at_ms,
       json_extract(line, '$.entry.kind') AS kind,
       json_extract(line, '$.entry') AS entry
FROM (SELECT seq, CAST(value AS TEXT) AS line FROM main.history WHERE kind = 'ledger');

CREATE TEMP VIEW payments AS
SELECT seq,
       json_extract(line, '$.finished_at_ms') AS at_ms,
       json_extract(line, '$.created_at_ms') AS created_at_ms,
       json_extract(line, '$.payment_hash') AS payment_hash,
       json_extract(line, '$.direction') AS direction,
       json_extract(line, '$.kind') AS kind,
       json_extract(line, '$.status') AS status,
       json_extract(line, '$.amount_msat') AS amount_msat,
       json_extract(line, '$.fee_msat') AS fee_msat,
       json_extract(line, '$.opening_fee_msat') AS opening_fee_msat,
       json_extract(line, '$.failure') AS failure,
       json_extract(line, '$.description') AS description
FROM (SELECT seq, CAST(value AS TEXT) AS line FROM main.history WHERE kind = 'payment');

-- A scid may be sold again once its order is over: each sale is a row.
CREATE TEMP VIEW orders AS
SELECT min(seq) AS seq,
       min(at_ms) AS at_ms,
       scid,
       max(CASE kind WHEN 'order_sold' THEN client END) AS client,
       max(trust) AS trust,
       max(size) AS size_msat,
       coalesce(max(CASE kind WHEN 'order_sold' THEN fee END), max(fee)) AS fee_msat,
       max(min_fee) AS min_fee_msat,
       max(proportional_ppm) AS proportional_ppm,
       max(min_lifetime) AS min_lifetime,
       CASE WHEN max(kind = 'order_paid') THEN 'paid'
            WHEN max(kind = 'order_ended') THEN 'ended'
            WHEN max(kind = 'order_owed') THEN 'owed'
            ELSE 'open' END AS state,
       sum(CASE kind WHEN 'fee_earned' THEN amount ELSE 0 END) AS earned_msat,
       max(CASE kind WHEN 'order_paid' THEN at_ms END) AS paid_at_ms,
       max(CASE kind WHEN 'order_ended' THEN at_ms END) AS ended_at_ms,
       max(CASE kind WHEN 'order_ended' THEN reason END) AS reason
FROM (SELECT *, sum(kind = 'order_sold') OVER (PARTITION BY scid ORDER BY seq) AS sale
      FROM (SELECT seq, at_ms, kind,
                   json_extract(entry, '$.scid') AS scid,
                   json_extract(entry, '$.client') AS client,
                   json_extract(entry, '$.trust') AS trust,
                   json_extract(entry, '$.size') AS size,
                   json_extract(entry, '$.fee') AS fee,
                   json_extract(entry, '$.tier.min_fee') AS min_fee,
                   json_extract(entry, '$.tier.proportional_ppm') AS proportional_ppm,
                   json_extract(entry, '$.tier.min_lifetime') AS min_lifetime,
                   json_extract(entry, '$.amount') AS amount,
                   json_extract(entry, '$.reason') AS reason
            FROM ledger
            WHERE kind IN ('order_sold', 'set_complete', 'fee_earned', 'order_paid', 'order_ended', 'order_owed')))
GROUP BY scid, sale;

CREATE TEMP VIEW channels AS
SELECT min(seq) AS seq,
       min(at_ms) AS at_ms,
       channel,
       max(peer) AS peer,
       max(scid) AS scid,
       max(by_us) AS by_us,
       max(CASE kind WHEN 'channel_funded' THEN value_sat END) AS value_sat,
       max(CASE kind WHEN 'channel_funded' THEN funding END) AS funding,
       max(CASE kind WHEN 'channel_ended' THEN at_ms END) AS ended_at_ms,
       max(CASE kind WHEN 'channel_ended' THEN reason END) AS reason,
       max(CASE kind WHEN 'channel_spent' THEN txid END) AS closing_txid
FROM (SELECT seq, at_ms, kind,
             json_extract(entry, '$.channel') AS channel,
             json_extract(entry, '$.peer') AS peer,
             json_extract(entry, '$.scid') AS scid,
             json_extract(entry, '$.by_us') AS by_us,
             json_extract(entry, '$.value_sat') AS value_sat,
             json_extract(entry, '$.funding') AS funding,
             json_extract(entry, '$.reason') AS reason,
             json_extract(entry, '$.txid') AS txid
      FROM ledger
      WHERE kind IN ('channel_funded', 'channel_opened', 'channel_ended', 'channel_spent'))
GROUP BY channel
HAVING max(kind = 'channel_funded');

CREATE TEMP VIEW fees AS
SELECT seq, at_ms, 'opening' AS kind,
       json_extract(entry, '$.amount') AS amount_msat,
       json_extract(entry, '$.client') AS client,
       json_extract(entry, '$.scid') AS scid,
       json_extract(entry, '$.channel') AS channel,
       json_extract(entry, '$.payment_hash') AS payment_hash
FROM ledger WHERE kind = 'fee_earned'
UNION ALL
SELECT seq, at_ms, 'routing',
       json_extract(entry, '$.received') - json_extract(entry, '$.sent') - json_extract(entry, '$.skim') AS amount,
       NULL, NULL,
       json_extract(entry, '$.to'),
       NULL
FROM ledger WHERE kind = 'forwarded' AND amount > 0;

-- By windows, not joins, which would compare each transaction with each open. The fee of a transaction that was undone
-- comes again, below zero: the row before it of the same transaction says what it was.
CREATE TEMP VIEW costs AS
WITH found AS (
    SELECT seq, at_ms, kind AS what,
           json_extract(entry, '$.purpose') AS purpose,
           json_extract(entry, '$.txid') AS txid,
           1000 * json_extract(entry, '$.fee_sat') AS amount,
           json_extract(entry, '$.open') AS open,
           json_extract(entry, '$.scid') AS scid,
           json_extract(entry, '$.client') AS client,
           json_extract(entry, '$.parts[0].channel') AS channel
    FROM ledger WHERE kind IN ('chain', 'chain_undone', 'open_requested')),
owned AS (
    SELECT seq, at_ms, what, purpose, txid, amount, channel,
           max(scid) OVER same_open AS scid,
           max(client) OVER same_open AS client
    FROM found WINDOW same_open AS (PARTITION BY coalesce(open, seq))),
stood AS (
    SELECT *,
           lag(purpose) OVER same_tx AS was, lag(amount) OVER same_tx AS cost, lag(channel) OVER same_tx AS of_channel,
           lag(scid) OVER same_tx AS of_scid, lag(client) OVER same_tx AS of_client
    FROM owned WHERE what <> 'open_requested' WINDOW same_tx AS (PARTITION BY txid ORDER BY seq))
SELECT seq, at_ms, purpose AS kind, amount AS amount_msat, client, scid, channel, txid
FROM stood WHERE what = 'chain' AND amount > 0
UNION ALL
SELECT seq, at_ms, was, -cost, of_client, of_scid, of_channel, txid
FROM stood WHERE what = 'chain_undone' AND cost > 0
UNION ALL
SELECT seq, at_ms, 'routing', json_extract(entry, '$.fee') AS amount, NULL, NULL, json_extract(entry, '$.channel'), NULL
FROM ledger WHERE kind = 'path_paid' AND amount > 0
UNION ALL
SELECT seq, at_ms, 'opening', json_extract(entry, '$.skimmed') AS amount, NULL, NULL, json_extract(entry, '$.channel'), NULL
FROM ledger WHERE kind = 'htlc_claimed' AND amount > 0;
